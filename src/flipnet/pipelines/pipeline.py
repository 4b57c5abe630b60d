"""`FlipnetPipeline`: the whole model as a diffusers pipeline, saved in diffusers' folder layout.

model_index.json
vae/ unet/ scheduler/ face_encoder/     each in diffusers' own layout
modes/<name>.safetensors                LoRA, hubs and tau of one mode
decoders/<name>/                        where a mode has a decoder of its own
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from flipnet import checkpoints, images
from flipnet.checkpoints import CheckpointError
from flipnet.models import flipnet as network_module
from flipnet.models.backbone import (
    LOADING_ERRORS,
    WEIGHTS_NAME,
    decode_latents,
    downscale_factor,
    encode_latents,
    encode_with_features,
    load_component,
    load_vae,
    one_line,
    raw_latents,
)
from flipnet.models.face_encoder import FaceEncoder
from flipnet.models.flipnet import Flipnet, load_mode, no_such_mode
from flipnet.models.mode_decoder import ModeDecoder
from flipnet.pipelines.sampling import denoise, initial_noise, restoration_start
from flipnet.pipelines.trial import refuse_unusable
from flipnet.types import FlipnetError, Mode

SCHEDULERS = {
    name: getattr(diffusers, name)
    for name in (
        "DDIMScheduler",
        "DDPMScheduler",
        "DPMSolverMultistepScheduler",
        "EulerDiscreteScheduler",
        "PNDMScheduler",
        "UniPCMultistepScheduler",
    )
}

CODE_JITTER = 0.1
"""Deviation of what is added to a drawn code, in deviations of the codes of real examples. Our choice."""

MAX_TIMESTEPS = 100_000
"""Most training timesteps of a scheduler; every one of them costs memory. Our choice: a hundred times the usual."""


@dataclass
class FlipnetPipelineOutput(BaseOutput):
    """Result of a call.

    Attributes:
        images: list of PIL images, or a uint8 array (B, S, S, 3), or a tensor (B, 3, S, S) in [-1, 1].
    """

    images: list[Image.Image] | np.ndarray | Tensor


class FlipnetPipeline(DiffusionPipeline):
    """FLIPNET: one network whose active mode says which way the faces go.

    Args:
        vae: diffusers' AutoencoderKL or AutoencoderTiny, or `CompactAutoencoder`.
        unet: the base.
        scheduler: a diffusers scheduler with the base's own prediction type.
        face_encoder: the BFR-oriented face embedding.

    Attributes:
        network: UNet, face encoder and modes as one.
        decoders: decoders of the modes that have their own, by the mode's name.
    """

    model_cpu_offload_seq = "face_encoder->unet->vae"

    def __init__(
        self, vae: Any, unet: UNet2DConditionModel, scheduler: Any, face_encoder: FaceEncoder
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler, face_encoder=face_encoder)
        self.network = Flipnet(unet, face_encoder)
        self.decoders: dict[str, ModeDecoder] = {}
        self.precision: Literal["auto", "bf16", "no"] = "auto"

    @property
    def native_size_px(self) -> int:
        """Side in pixels of the square faces that the base was made for."""
        return self.unet.config.sample_size * downscale_factor(self.vae)

    def to(self, *args: Any, **kwargs: Any) -> FlipnetPipeline:
        """Move all parts, tau included."""
        super().to(*args, **kwargs)
        self.network.adapters.to(self.device)
        for decoder in self.decoders.values():
            decoder.to(self.device)
        return self

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        modes: Collection[str] | None = None,
        **kwargs: Any,
    ) -> FlipnetPipeline:
        """Load a checkpoint by bundled name ("compact"), folder, or hub id; float32, safetensors only.

        Args:
            modes: the modes to load, each with its decoder; None loads all. The files of the others must be there,
                they are not looked into (a bundled model's checksums are compared all the same). A pipeline that
                was loaded in part starts sooner and cannot be saved.

        Raises CheckpointError naming the folder and the cause, FlipnetError for a mode that the checkpoint lacks.
        """
        if kwargs:
            raise TypeError(f"unexpected arguments {sorted(kwargs)}")
        folder = checkpoints.resolve(Path(pretrained_model_name_or_path))
        index = checkpoints.read_json(folder / "model_index.json")
        if index.get("_class_name") != cls.__name__:
            raise CheckpointError(f"{folder}: model_index.json describes a {index.get('_class_name')}")
        listed, decoders = (
            checkpoints.plain_names(index, key, folder / "model_index.json") for key in ("modes", "decoders")
        )
        wanted = listed if modes is None else modes
        for name in wanted:
            if name not in listed:
                raise FlipnetError(f"{pretrained_model_name_or_path}: {no_such_mode(name, listed)}")
        pipeline = cls(
            vae=load_vae(folder / "vae"),
            unet=load_component(folder / "unet", {"UNet2DConditionModel": UNet2DConditionModel}),
            scheduler=load_scheduler(folder / "scheduler"),
            face_encoder=load_component(folder / "face_encoder", {"FaceEncoder": FaceEncoder}),
        )
        pipeline.network.left_out = tuple(name for name in listed if name not in wanted)
        _load_modes(pipeline, folder, listed)
        _load_decoders(pipeline, folder, decoders)
        pipeline.network.float().eval().requires_grad_(False)
        for part in (pipeline.vae, *pipeline.decoders.values()):
            part.float().eval().requires_grad_(False)
        # Bundled ones are known by their checksums.
        if folder.parent != checkpoints.BUNDLED:
            refuse_unusable(pipeline, folder)
        return pipeline

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write the folder layout above, under a temporary name first.

        Args:
            save_directory: folder to write; it is replaced when it exists.
            kwargs: `dtype`, a torch dtype for the stored weights (float16 halves the size).

        Raises FlipnetError when modes were left out on loading, which the saved folder would lack.
        """
        dtype = kwargs.pop("dtype", None)
        if kwargs:
            raise TypeError(f"unexpected arguments {sorted(kwargs)}")
        if self.network.left_out:
            raise FlipnetError(
                f"{save_directory}: not saved, as mode '{self.network.left_out[0]}' was left out when this model "
                "was loaded."
            )
        self.network.unfuse()
        target = Path(save_directory)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        parts = {"vae": self.vae, "face_encoder": self.network.face_encoder.without_decoders()}
        parts |= {f"decoders/{name}": decoder for name, decoder in self.decoders.items()}
        for name, part in parts.items():
            _cast_copy(part, dtype).save_pretrained(partial / name)
        network_module.save_base_unet(self.unet, partial / "unet", dtype)
        self.scheduler.save_pretrained(partial / "scheduler")
        for mode in self.network.adapters:
            network_module.save_mode(self.network, mode, partial / "modes" / f"{mode}.safetensors", dtype)
        index = {
            "_class_name": type(self).__name__,
            "_diffusers_version": diffusers.__version__,
            "modes": list(self.network.adapters),
            "decoders": list(self.decoders),
            "vae": [
                "flipnet" if type(self.vae).__module__.startswith("flipnet") else "diffusers",
                type(self.vae).__name__,
            ],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "scheduler": ["diffusers", type(self.scheduler).__name__],
            "face_encoder": ["flipnet", "FaceEncoder"],
        }
        for config in partial.rglob("config.json"):
            _forget_origin(config)
        (partial / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
        checkpoints.write_checksums(partial)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | Sequence[Image.Image] | np.ndarray | Tensor,
        *,
        mode: str = "restoration",
        phi: float = 1.0,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        return_dict: bool = True,
    ) -> FlipnetPipelineOutput | tuple:
        """Denoise the target, looking at the condition image.

        Args:
            image: condition: PIL image(s), uint8 (B, S, S, 3) or (S, S, 3) RGB, or float (B, 3, S, S) in [-1, 1],
                S the native size.
            mode: name of a mode that the checkpoint holds.
            phi: boosting weight φ >= 0; 0 pure generation, 1 the balance the model was trained for, above 1 the
                condition dominates.
            num_inference_steps: denoising steps, at least 1; None takes the mode's own number.
            generator: one CPU generator per image, or one for all; None draws a fresh seed.
            output_type: "pil", "np" (uint8 (B, S, S, 3)) or "pt" (float32 (B, 3, S, S), clamped to [-1, 1]).
            return_dict: False returns a tuple.

        Raises ValueError for a wrong size, φ or step count.
        """
        faces = as_faces(image).to(self.device)
        size = self.native_size_px
        if faces.shape[1:] != (3, size, size):
            raise ValueError(f"image must be {size}x{size} RGB, got a tensor of shape {tuple(faces.shape)}")
        self.network.activate(mode)
        if num_inference_steps is None:
            num_inference_steps = self.network.default_steps[mode]
        if phi < 0 or num_inference_steps < 1:
            raise ValueError(f"need phi >= 0 and at least one step, got {phi} and {num_inference_steps}")
        generators = _generators(generator, len(faces))
        latents, features = self.encode(faces)
        codes = self.draw_codes(generators)
        denoised = self.denoise(latents, faces, generators, num_inference_steps, phi=phi, codes=codes)
        decoded = self.decode(denoised, features, generators, phi=phi, codes=codes)
        result: Any = decoded.clamp(-1, 1)
        if output_type != "pt":
            result = images.tensor_to_uint8(decoded)
        if output_type == "pil":
            result = [Image.fromarray(face) for face in result]
        return FlipnetPipelineOutput(images=result) if return_dict else (result,)

    @torch.no_grad()
    def encode(self, faces: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode condition faces (B, 3, S, S) in [-1, 1].

        Returns their latents (B, L, h, w), and the encoder's features, finest first, where the decoder of the mode
        in use looks at them; else none.
        """
        decoder = self.decoders.get(self.network.mode or "")
        with self.autocast():
            if decoder is not None and decoder.config.fuses:
                return encode_with_features(self.vae, faces)
            return encode_latents(self.vae, faces), []

    def draw_codes(self, generators: Sequence[torch.Generator]) -> Tensor | None:
        """Draw what the mode in use is to make of each image: normalised codes (B, K), one CPU generator per image.

        Each is the code of a real example that the mode learned from, moved a little (`CODE_JITTER`). None, and
        nothing is drawn, where the mode has no codes.
        """
        tau = self.network.tau(self.network.mode or "")
        if not tau.code_dim:
            return None
        drawn = []
        for generator in generators:
            example = int(torch.randint(len(tau.codes), (), generator=generator))
            jitter = torch.randn(tau.code_dim, generator=generator) * CODE_JITTER
            drawn.append(tau.codes[example] + jitter.to(tau.codes))
        return torch.stack(drawn)

    @torch.no_grad()
    def denoise(
        self,
        latents: Tensor,
        faces: Tensor,
        generators: Sequence[torch.Generator],
        steps: int,
        *,
        phi: float = 1.0,
        codes: Tensor | None = None,
    ) -> Tensor:
        """Latents (B, L, h, w) that the mode in use makes of condition faces and their latents.

        `codes`, normalised (B, K), say what to make, for a mode that has codes and no other; see `draw_codes`.
        """
        with self.autocast():
            condition = self.network.condition(latents, self.network.embed(faces), phi=phi, code=codes)
            shape = tuple(latents.shape[1:])
            if self.network.mode == Mode.RESTORATION:
                noise = restoration_start(list(generators), shape, self.device, steps)
            else:
                noise = initial_noise(list(generators), shape, self.device)
            return denoise(
                lambda noisy, timestep: self.network(noisy, timestep, condition),
                self.scheduler,
                noise,
                steps,
            )

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,
        features: Sequence[Tensor] = (),
        generators: Sequence[torch.Generator] | None = None,
        *,
        phi: float = 1.0,
        codes: Tensor | None = None,
    ) -> Tensor:
        """Decode latents of the mode in use to float32 (B, 3, S, S), meant for [-1, 1], not clamped.

        `features` of the condition faces count with weight min(φ, 1), as the extra input channels do; `codes` are
        those that the latents were made by.
        """
        decoder = self.decoders.get(self.network.mode or "")
        with self.autocast():
            if decoder is None:
                return decode_latents(self.vae, latents).float()
            raw = raw_latents(self.vae, latents)
            return decoder(
                raw, features if phi > 0 else (), weight=min(phi, 1.0), generators=generators, code=codes
            ).float()

    def autocast(self) -> torch.autocast:
        """bf16 autocast where the CPU multiplies bf16 in hardware, float32 elsewhere unless asked for."""
        kind = self.device.type
        wanted = self.precision == "bf16" or (self.precision == "auto" and (kind != "cpu" or cpu_has_bf16()))
        return torch.autocast(kind, torch.bfloat16, enabled=wanted)


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AMX or AVX512-BF16)."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def _load_modes(pipeline: FlipnetPipeline, folder: Path, names: Sequence[str]) -> None:
    for name in names:
        file = folder / "modes" / f"{name}.safetensors"
        _require_listed(file, "mode")
        if name not in pipeline.network.left_out:
            load_mode(pipeline.network, name, file)


def _load_decoders(pipeline: FlipnetPipeline, folder: Path, names: Sequence[str]) -> None:
    for name in names:
        part = folder / "decoders" / name
        if name in pipeline.network.left_out:
            for file in ("config.json", WEIGHTS_NAME):
                _require_listed(part / file, "decoder")
            continue
        decoder = load_component(part, {"ModeDecoder": ModeDecoder})
        if decoder.config.code_dim not in (0, pipeline.network.code_dim(name)):
            raise CheckpointError(f"{part}: takes codes that its mode does not have")
        pipeline.decoders[name] = decoder


def _require_listed(file: Path, kind: str) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file}: missing, model_index.json lists this {kind}")


def load_scheduler(folder: Path) -> Any:
    """Load a diffusers scheduler from its folder; CheckpointError when it is not one we know."""
    config = checkpoints.read_json(folder / "scheduler_config.json")
    name, timesteps = config.get("_class_name"), config.get("num_train_timesteps", 1000)
    if not isinstance(timesteps, int) or not 1 <= timesteps <= MAX_TIMESTEPS:
        raise CheckpointError(f"{folder}: num_train_timesteps {timesteps!r} is outside 1 to {MAX_TIMESTEPS}")
    if not isinstance(name, str) or name not in SCHEDULERS:
        raise CheckpointError(f"{folder}: holds a {name}, expected one of {', '.join(SCHEDULERS)}")
    try:
        return SCHEDULERS[name].from_pretrained(str(folder))
    except LOADING_ERRORS as error:
        raise CheckpointError(f"{folder}: cannot be loaded as a {name}: {one_line(error)}") from error


def _forget_origin(config: Path) -> None:
    """Take the folder that a part was loaded from out of its config: it says nothing to anyone else."""
    content = checkpoints.read_json(config)
    content.pop("_name_or_path", None)
    config.write_text(json.dumps(content, indent=2) + "\n")


def _cast_copy(model: Any, dtype: torch.dtype | None) -> Any:
    if dtype is None:
        return model
    copy = type(model).from_config(model.config)
    copy.load_state_dict({key: value.to(dtype) for key, value in model.state_dict().items()}, assign=True)
    return copy


def as_faces(image: Any) -> Tensor:
    """Turn PIL image(s), uint8 (B, S, S, 3) or (S, S, 3) RGB, or a tensor into float (B, 3, S, S) in [-1, 1]."""
    if isinstance(image, Tensor):
        return image if image.ndim == 4 else image[None]
    if isinstance(image, np.ndarray):
        return images.faces_to_tensor(image)
    pictures = [image] if isinstance(image, Image.Image) else list(image)
    return images.faces_to_tensor(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))


def _generators(
    generator: torch.Generator | list[torch.Generator] | None, count: int
) -> list[torch.Generator]:
    if isinstance(generator, list):
        if len(generator) != count:
            raise ValueError(f"{count} images but {len(generator)} generators")
        return generator
    if generator is None:
        generator = torch.Generator().manual_seed(torch.seed())
    return [generator] * count
