"""The base that the modes are built on: VAE, UNet and noise schedule of a latent diffusion model.

A base is a folder in diffusers' layout (`unet`, `vae`, `scheduler`), a hub id of one, or a single file with the
original layout of Stable Diffusion. Text encoders are never read: Adapter tau takes their place.
Source: FLIPNET builds on Stable Diffusion 2.1; what else fits is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from flipnet.checkpoints import CheckpointError, from_hub, read_json
from flipnet.models.backbone import load_component, load_vae
from flipnet.models.single_file import load_single_file

PICKLED = {".ckpt", ".bin", ".pt", ".pth", ".pkl"}
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")

# Published configurations of Stable Diffusion 2.1, whose weights decide nothing about shapes and cost.
SD21_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
SD_VAE: dict[str, Any] = {
    "sample_size": 512,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "scaling_factor": 0.18215,
}
SD_SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
}


@dataclass(frozen=True)
class Base:
    """The parts of a base.

    Attributes:
        vae: of a class in `backbone.VAE_CLASSES`, with its own scaling factor.
        unet: one that `check_base` has nothing against.
        scheduler: with the base's own noise schedule and prediction type.
    """

    vae: Any
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler


def load_base(location: str, prediction_type: str | None = None) -> Base:
    """Load a base from a folder, a hub id "owner/name" (network), or a .safetensors file; float32.

    Args:
        prediction_type: "epsilon" or "v_prediction"; a single file does not say, so it must be given there, and
            only there.

    Raises CheckpointError with one sentence that names the base and why it cannot be used.
    """
    file = Path(location)
    if file.suffix.lower() in PICKLED:
        raise CheckpointError(f"{location}: pickled weights are not read, convert them to .safetensors.")
    if file.suffix == ".safetensors":
        base = _from_single_file(file, prediction_type)
    else:
        if prediction_type is not None:
            raise CheckpointError(f"{location}: says itself what it predicts, leave prediction_type out.")
        base = _from_folder(_folder_of(location))
    check_base(base, location)
    return base


def load_base_vae(location: str) -> Any:
    """Load the VAE of a base, or of a folder that holds a VAE alone; raises as `load_base` does."""
    file = Path(location)
    if file.suffix == ".safetensors":
        _require_file(file)
        return load_single_file(file, "vae")
    if (file / "config.json").is_file():
        return load_vae(file)
    return load_vae(_folder_of(location) / "vae")


def sd21_base() -> Base:
    """Return Stable Diffusion 2.1's parts with random weights; on the meta device they take no memory."""
    scheduler = DDIMScheduler(**SD_SCHEDULER, clip_sample=False, timestep_spacing="trailing")
    return Base(AutoencoderKL(**SD_VAE), UNet2DConditionModel(**SD21_UNET), scheduler)


def check_base(base: Base, location: str) -> None:
    """Raise CheckpointError when the parts do not fit each other, or FLIPNET."""
    unet, latent = base.unet.config, base.vae.config.latent_channels
    asks_for_more = [
        name
        for name in ("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim")
        if unet.get(name) is not None
    ]
    kind = base.scheduler.config.prediction_type
    reason = None
    if unet.out_channels != latent:
        reason = f"its UNet makes {unet.out_channels} channels, its VAE's latents have {latent}"
    elif unet.in_channels not in (latent, 2 * latent):
        reason = f"its UNet takes {unet.in_channels} channels, expected {latent} (or {2 * latent})"
    elif not isinstance(unet.cross_attention_dim, int):
        reason = f"its cross-attention width is {unet.cross_attention_dim}, Adapter tau needs one number"
    elif asks_for_more:
        reason = f"its UNet wants inputs that FLIPNET has not ({', '.join(asks_for_more)})"
    elif kind not in PREDICTION_TYPES:
        reason = f"it predicts '{kind}', known are {', '.join(PREDICTION_TYPES)}"
    if reason is not None:
        raise CheckpointError(f"{location}: cannot be a base: {reason}.")


def _folder_of(location: str) -> Path:
    folder = Path(location)
    if folder.is_dir():
        return folder
    if location.count("/") == 1 and not location.startswith((".", "/", "~")) and not folder.parent.is_dir():
        patterns = [f"{part}/*" for part in ("unet", "vae", "scheduler")]
        return from_hub(location, patterns, ignored=["*.bin", "*.msgpack", "*.fp16.*", "*non_ema*"])
    raise CheckpointError(f"{location}: no such folder or file, and not a hub id.")


def _from_folder(folder: Path) -> Base:
    for part, name in (
        ("unet", "config.json"),
        ("vae", "config.json"),
        ("scheduler", "scheduler_config.json"),
    ):
        if not (folder / part / name).is_file():
            raise CheckpointError(f"{folder}: cannot be a base: it has no {part}/{name}.")
    schedule = read_json(folder / "scheduler" / "scheduler_config.json")
    if "beta_schedule" not in schedule:
        raise CheckpointError(
            f"{folder}: cannot be a base: its {schedule.get('_class_name')} has no noise schedule of betas."
        )
    return Base(
        load_vae(folder / "vae"),
        load_component(folder / "unet", {"UNet2DConditionModel": UNet2DConditionModel}),
        _scheduler(schedule),
    )


def _scheduler(schedule: dict[str, Any]) -> DDIMScheduler:
    """One scheduler class for every base, so that noise is added and sampled alike whichever the base came with.

    Latents are not clipped, and sampling starts at the last timestep (our choice).
    """
    known = {key: value for key, value in schedule.items() if not key.startswith("_")}
    return DDIMScheduler.from_config(
        known, clip_sample=False, thresholding=False, timestep_spacing="trailing"
    )


def _from_single_file(file: Path, prediction_type: str | None) -> Base:
    _require_file(file)
    if prediction_type is None:
        raise CheckpointError(
            f"{file}: a single file does not say what it predicts, set prediction_type to epsilon or v_prediction."
        )
    return Base(
        load_single_file(file, "vae"),
        load_single_file(file, "unet"),
        _scheduler(SD_SCHEDULER | {"prediction_type": prediction_type}),
    )


def _require_file(file: Path) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file.")
