"""The network as a whole: a base UNet, the face encoder, and per mode one LoRA, one set of hubs and one tau.

Nothing here knows which image is HQ or LQ: there is a target and a condition (see `types.assign_roles`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flipnet import checkpoints
from flipnet.models.adapter import Adapter, add_lora
from flipnet.models.boosthub import ConditionFeatures, activate_hubs, add_hubs, hub_processors
from flipnet.models.face_encoder import FaceEncoder
from flipnet.models.fused import FusedLora, is_fused
from flipnet.types import FlipnetError

CONDITION_TIMESTEP = 0


@dataclass(frozen=True)
class Condition:
    """What is known of the condition image, computed once and used at every step.

    Attributes:
        features: recorded features for the hubs, φ among them.
        tokens: context tokens (B, M, C) for cross-attention.
        latents: condition latents (B, L, h, w) for the extra input channels, None where the base has none.
        code: what the mode's code adds to the time embedding (B, T), None where it has none.
    """

    features: ConditionFeatures
    tokens: Tensor
    latents: Tensor | None
    code: Tensor | None = None


class Flipnet(nn.Module):
    """A base UNet with named modes on it.

    Args:
        unet: the base; `in_channels` is the latent channels, or twice that when condition latents may also be
            concatenated (our choice for the compact model: a direct path pays at a small budget).
        face_encoder: gives the embedding that tau projects.

    Attributes:
        default_steps: denoising steps of each mode unless told otherwise.
        mode: the one in use.
        left_out: modes that the checkpoint holds and that were not loaded from it.
    """

    def __init__(self, unet: UNet2DConditionModel, face_encoder: FaceEncoder) -> None:
        super().__init__()
        self.unet = unet
        self.face_encoder = face_encoder
        self.adapters = nn.ModuleDict()
        self.default_steps: dict[str, int] = {}
        self.mode: str | None = None
        self.left_out: tuple[str, ...] = ()
        self._fused: FusedLora | None = None
        self._code: Tensor | None = None
        unet.time_embedding.register_forward_hook(self._add_code)

    @property
    def latent_channels(self) -> int:
        """Channels of the target latents."""
        return self.unet.config.out_channels

    @property
    def concatenates(self) -> bool:
        """Whether the base has input channels for the condition latents."""
        return self.unet.config.in_channels == 2 * self.latent_channels

    def add_mode(
        self,
        name: str,
        *,
        lora_rank: int,
        rotary: bool,
        context_tokens: int,
        embeds: bool = True,
        lora_convolutions: bool = False,
        default_steps: int = 4,
        code_dim: int = 0,
    ) -> None:
        """Add an untrained mode: LoRA, hubs and tau, all starting as no change to the base.

        `default_steps` is how many denoising steps the mode takes unless told otherwise; see `add_code` for
        `code_dim`, 0 for none, and `add_lora`, `BoostHub` and `Adapter` for the other arguments.
        """
        self.default_steps[name] = default_steps
        add_lora(self.unet, name, lora_rank, convolutions=lora_convolutions)
        add_hubs(self.unet, name, rotary=rotary)
        self.adapters[name] = Adapter(
            self.face_encoder.num_tokens,
            self.face_encoder.config.embedding_dim,
            context_tokens,
            self.unet.config.cross_attention_dim,
            embeds=embeds,
        )
        if code_dim:
            self.add_code(name, code_dim)
        self.activate(name)

    def add_code(self, name: str, code_dim: int) -> None:
        """Give a mode, new or trained, a code of K numbers that says what it shall make; no change at first.

        Its `Adapter.set_codes` then takes the codes to draw from.
        """
        self.tau(name).add_code(code_dim, self.time_dim)

    def code_dim(self, name: str) -> int:
        """How many numbers a mode's code has, 0 for a mode without one or no such mode."""
        return self.tau(name).code_dim if name in self.adapters else 0

    def tau(self, name: str) -> Adapter:
        """Return a mode's Adapter tau."""
        adapter = self.adapters[name]
        assert isinstance(adapter, Adapter)
        return adapter

    @property
    def time_dim(self) -> int:
        """Width of the base's time embedding."""
        return self.unet.time_embedding.linear_2.out_features

    def activate(self, name: str) -> None:
        """Put a mode's LoRA, hubs and tau in use; FlipnetError if there is none of that name, or left out."""
        if name not in self.adapters:
            if name in self.left_out:
                raise FlipnetError(f"Mode '{name}' was left out when this model was loaded.")
            raise no_such_mode(name, self.adapters)
        if self._fused is not None and self._fused.name != name:
            self.unfuse()
        self.unet.set_adapter(name)
        activate_hubs(self.unet, name)
        self.mode = name

    def fuse(self) -> None:
        """Merge the LoRA of the mode in use into the base, for inference; done already, it does nothing.

        Predictions stay the same but for rounding (1e-4). Activating another mode takes it out again.
        """
        if self._fused is None and self.mode is not None:
            self._fused = FusedLora(self.unet, self.mode)

    def unfuse(self) -> None:
        """Bring the base's own weights back, bit by bit."""
        if self._fused is not None:
            self._fused.undo()
            self._fused = None

    def mode_parameters(self, name: str) -> list[nn.Parameter]:
        """Return the parameters that belong to one mode alone."""
        lora = [p for key, p in self.unet.named_parameters() if "lora_" in key and f".{name}." in key]
        hubs = [p for hub in hub_processors(self.unet).values() for p in hub.hubs[name].parameters()]
        return lora + hubs + list(self.adapters[name].parameters())

    def embed(self, faces: Tensor) -> Tensor | None:
        """Return the embedding of condition faces (B, 3, S, S) in [-1, 1], None where the mode in use has none."""
        return self.face_encoder(faces) if self.tau(self.mode or "").embeds else None

    def condition(
        self,
        latents: Tensor,
        embedding: Tensor | None,
        *,
        phi: float | Tensor = 1.0,
        concat_scale: float | Tensor | None = None,
        keep: Tensor | None = None,
        code: Tensor | None = None,
        gradient: bool = True,
    ) -> Condition:
        """Pass the condition through the UNet once.

        Args:
            latents: condition latents (B, L, h, w), clean.
            embedding: face embedding (B, N, D), None for the learned null context.
            phi: boosting weight φ, a number or (B,).
            concat_scale: factor (a number or (B, 1, 1, 1)) on the latents given to the extra input channels;
                by default min(φ, 1), so that φ = 0 is pure generation.
            keep: bool (B,), False withholds the condition from hubs and tokens (the learned null context).
            code: normalised code (B, K), for a mode that has codes and no other.
            gradient: False stops gradients through the pass; hubs and tau still learn.

        The pass runs at timestep 0 without noise, and without condition latents and code of its own (our choice).
        """
        tau = self.tau(self.mode or "")
        if (code is not None) != bool(tau.code_dim):
            raise ValueError(f"mode '{self.mode}' takes codes of {tau.code_dim} numbers, got {code}")
        null = tau.null_tokens(latents.shape[0]).to(latents.dtype)
        if embedding is None or (not isinstance(phi, Tensor) and phi == 0):
            tokens = null
        else:
            tokens = tau(embedding)
            if keep is not None:
                tokens = torch.where(keep[:, None, None], tokens, null.to(tokens.dtype))
        features = ConditionFeatures(recording=True)
        with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
            self._forward(latents, CONDITION_TIMESTEP, null, features, None)
        weight = phi.view(-1, 1, 1) if isinstance(phi, Tensor) else phi
        if keep is not None:
            weight = weight * keep[:, None, None].to(latents.dtype)
        if concat_scale is None:
            concat_scale = phi.clamp(max=1).view(-1, 1, 1, 1) if isinstance(phi, Tensor) else min(phi, 1.0)
        concat = latents * concat_scale if self.concatenates else None
        added = None if code is None else tau.embed_code(code)
        return Condition(features.with_phi(weight), tokens, concat, added)

    def forward(self, noisy: Tensor, timesteps: Tensor | int, condition: Condition) -> Tensor:
        """Return the base's prediction (epsilon, v or sample, as its scheduler says), (B, L, h, w)."""
        self._code = condition.code
        try:
            return self._forward(noisy, timesteps, condition.tokens, condition.features, condition.latents)
        finally:
            self._code = None

    def _add_code(self, module: nn.Module, inputs: tuple[Tensor, ...], embedding: Tensor) -> Tensor:
        """Hook on the base's time embedding (B, T)."""
        return embedding if self._code is None else embedding + self._code.to(embedding.dtype)

    def _forward(
        self,
        latents: Tensor,
        timesteps: Tensor | int,
        tokens: Tensor,
        features: ConditionFeatures,
        concat: Tensor | None,
    ) -> Tensor:
        if self.concatenates:
            latents = torch.cat([latents, torch.zeros_like(latents) if concat is None else concat], dim=1)
        return self.unet(
            latents, timesteps, tokens, cross_attention_kwargs={"condition": features}, return_dict=False
        )[0]


def no_such_mode(name: str, modes: Iterable[str]) -> FlipnetError:
    """Return the error for a mode that is not among those of a model."""
    return FlipnetError(f"This model has no mode '{name}'; it has {', '.join(modes) or 'none'}.")


def base_state_dict(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Return the base's own weights under their own names, without LoRA and hubs."""
    return {
        key.replace(".base_layer.", "."): value
        for key, value in unet.state_dict().items()
        if "lora_" not in key and ".processor." not in key
    }


def save_base_unet(unet: UNet2DConditionModel, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Save the base alone in diffusers' layout, optionally in another dtype.

    Raises ValueError while a LoRA is fused: its weights are not the base's.
    """
    if is_fused(unet):
        raise ValueError("a LoRA is fused into this UNet, call the network's unfuse() before saving it")
    with torch.device("meta"):
        base = UNet2DConditionModel.from_config(unet.config)
    state = {k: v.detach().clone().to(dtype or v.dtype) for k, v in base_state_dict(unet).items()}
    base.load_state_dict(state, assign=True)
    base.save_pretrained(folder)


def mode_state_dict(network: Flipnet, name: str) -> dict[str, Tensor]:
    """Return a mode's weights: `lora.*`, `hub.<layer>.*` and `tau.*`."""
    state = {f"lora.{k}": v for k, v in get_peft_model_state_dict(network.unet, adapter_name=name).items()}
    for layer, processor in hub_processors(network.unet).items():
        state |= {f"hub.{layer}.{k}": v for k, v in processor.hubs[name].state_dict().items()}
    state |= {f"tau.{k}": v for k, v in network.adapters[name].state_dict().items()}
    return state


def save_mode(network: Flipnet, name: str, file: Path, dtype: torch.dtype | None = None) -> None:
    """Save a mode as one safetensors file, its shape parameters in the file's metadata."""
    tau = network.tau(name)
    rotary = next(iter(hub_processors(network.unet).values())).hubs[name].rotary
    rank = network.unet.peft_config[name].r
    targets = network.unet.peft_config[name].target_modules
    metadata = {
        "lora_rank": str(rank),
        "lora_convolutions": str("conv1" in targets),
        "rotary": str(rotary),
        "context_tokens": str(len(tau.null)),
        "embeds": str(tau.embeds),
        "default_steps": str(network.default_steps[name]),
        "code_dim": str(tau.code_dim),
    }
    state = {
        k: v.detach().to(dtype or v.dtype).contiguous() for k, v in mode_state_dict(network, name).items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, file, metadata)


def load_mode(network: Flipnet, name: str, file: Path) -> None:
    """Add the mode stored in a safetensors file; FlipnetError names keys that are missing or too many."""
    metadata, shapes = checkpoints.tensor_shapes(file)
    try:
        rank, tokens, steps = (int(metadata[key]) for key in ("lora_rank", "context_tokens", "default_steps"))
        rotary, embeds, convolutions = (
            metadata[key] == "True" for key in ("rotary", "embeds", "lora_convolutions")
        )
        # Modes written before there were codes do not say.
        code_dim = int(metadata.get("code_dim", "0"))
    except (KeyError, ValueError) as error:
        raise FlipnetError(f"{file}: not a mode file of flipnet, its metadata lacks {error}") from error
    # Before memory is taken for them.
    ranks = {shape[:1] for key, shape in shapes.items() if key.endswith("lora_A.weight")}
    if ranks != {(rank,)} or shapes.get("tau.null", ())[:1] != (tokens,) or steps < 1:
        raise FlipnetError(f"{file}: its tensors do not have the sizes that its metadata state")
    if embeds and shapes.get("tau.position", ())[:1] != (network.face_encoder.num_tokens,):
        raise FlipnetError(
            f"{file}: its tau.position does not have a row for every token of the face encoder"
        )
    bank = shapes.get("tau.codes", ())
    if code_dim and (
        len(bank) != 2
        or bank[0] < 1
        or bank[1] != code_dim
        or shapes.get("tau.code_in.weight") != (network.time_dim, code_dim)
    ):
        raise FlipnetError(f"{file}: its codes do not have the sizes that its metadata state")
    network.add_mode(
        name,
        lora_rank=rank,
        rotary=rotary,
        context_tokens=tokens,
        embeds=embeds,
        lora_convolutions=convolutions,
        default_steps=steps,
        code_dim=code_dim,
    )
    if code_dim:
        network.tau(name).codes = torch.zeros(bank)
    state = load_file(file)
    expected = mode_state_dict(network, name)
    wrong = sorted(
        key
        for key in state.keys() | expected.keys()
        if key not in state or key not in expected or state[key].shape != expected[key].shape
    )
    if wrong:
        raise FlipnetError(
            f"{file}: does not fit its base, first at {wrong[0]} ({len(wrong)} tensors in all)"
        )
    checkpoints.refuse_not_finite(state, file)
    state = {key: value.to(expected[key].dtype) for key, value in state.items()}
    set_peft_model_state_dict(network.unet, _strip(state, "lora."), adapter_name=name)
    for layer, processor in hub_processors(network.unet).items():
        processor.hubs[name].load_state_dict(_strip(state, f"hub.{layer}."))
    network.adapters[name].load_state_dict(_strip(state, "tau."))


def _strip(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
