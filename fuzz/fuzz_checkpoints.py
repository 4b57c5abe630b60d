"""A tiny checkpoint with faults in it: a pipeline that restores a face, or a `FlipnetError`. See README.md."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

# Imported before it can be instrumented: ours leads the fuzzer well enough, at twice the speed.
import diffusers  # noqa: F401

with atheris.instrument_imports(include=["flipnet.checkpoints", "flipnet.models", "flipnet.pipelines"]):
    from flipnet.models.backbone import load_component, load_vae
    from flipnet.models.flipnet import Flipnet, load_mode
    from flipnet.models.single_file import load_single_file
    from flipnet.pipelines.pipeline import FlipnetPipeline, load_scheduler

import torch
from checkpoint_faults import Changes, Choices, Link, spoil
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

from flipnet.models.autoencoder import CompactAutoencoder
from flipnet.models.face_encoder import FaceEncoder
from flipnet.models.mode_decoder import ModeDecoder
from flipnet.types import FlipnetError
from sd_like import original_state

SHARED_MEMORY = Path("/dev/shm")
LARGEST_FACE_PX = 64
WIDTHS, LATENT = (8, 8), 4
UNET: dict[str, Any] = {
    "sample_size": 4,
    "in_channels": 2 * LATENT,
    "out_channels": LATENT,
    "block_out_channels": (8,),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D",),
    "mid_block_type": None,
    "up_block_types": ("UpBlock2D",),
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
# Stable Diffusion's have 32 groups of channels.
SD_UNET: dict[str, Any] = {
    "in_channels": LATENT,
    "out_channels": LATENT,
    "block_out_channels": (32, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 8,
    "attention_head_dim": (1, 1),
    "use_linear_projection": True,
}
SD_VAE: dict[str, Any] = {
    "block_out_channels": (32,),
    "layers_per_block": 1,
    "latent_channels": LATENT,
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
}


def save_checkpoint(folder: Path) -> None:
    """Write a pipeline of one mode with a decoder, and beside it, which it does not mind, other bases' parts.

    Native size 16: 4x4 latents, 4 face tokens.
    """
    torch.manual_seed(0)
    shape: dict[str, Any] = {"channels": WIDTHS, "blocks": 1, "unshuffle": 2}
    vae = CompactAutoencoder(**shape, latent_channels=LATENT, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    encoder = FaceEncoder(**shape, embedding_dim=8, input_px=8)
    pipeline = FlipnetPipeline(vae, UNet2DConditionModel(**UNET), DDIMScheduler(), encoder)
    pipeline.network.add_mode("restoration", lora_rank=1, rotary=True, context_tokens=3)
    pipeline.decoders["restoration"] = ModeDecoder.from_vae(vae, fuses=True, noise=True)
    pipeline.save_pretrained(folder)
    (folder / "sha256.json").unlink()
    AutoencoderTiny(
        encoder_block_out_channels=WIDTHS,
        decoder_block_out_channels=WIDTHS,
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=LATENT,
    ).save_pretrained(folder / "vae-taesd")
    gaussian = AutoencoderKL(**SD_VAE)
    gaussian.save_pretrained(folder / "vae-sd")
    unet = UNet2DConditionModel(**SD_UNET)
    state = {name: value.contiguous() for name, value in original_state(unet, gaussian).items()}
    save_file(state, folder / "single.safetensors")


FOLDER = Path(tempfile.mkdtemp(prefix="flipnet-fuzz-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None))
CHECKPOINT = FOLDER / "model"
save_checkpoint(CHECKPOINT)
# Every weight is read from a file: the numbers that layers begin with cost time and are never used.
for initialiser in [name for name in vars(torch.nn.init) if name.endswith("_") and not name.startswith("_")]:
    setattr(torch.nn.init, initialiser, lambda tensor, *rest, **settings: tensor)
WHOLE = {p.relative_to(CHECKPOINT).as_posix(): p.read_bytes() for p in CHECKPOINT.rglob("*") if p.is_file()}
# What `from_pretrained` reads.
TOGETHER = {name: content for name, content in WHOLE.items() if not name.startswith(("vae-", "single"))}


class FreshNetwork:
    """A network without modes: kept while files are refused before it is changed, made anew afterwards."""

    def __init__(self) -> None:
        self.made: Flipnet | None = None

    def load(self, file: Path) -> None:
        """Add the mode in the file."""
        if self.made is None or self.made.adapters:
            encoder = load_component(CHECKPOINT / "face_encoder", {"FaceEncoder": FaceEncoder})
            self.made = Flipnet(UNet2DConditionModel(**UNET), encoder)
        load_mode(self.made, "restoration", file)


PARTS: dict[str, Callable[[Path], object]] = {
    "vae": load_vae,
    "vae-taesd": load_vae,
    "vae-sd": load_vae,
    "unet": lambda folder: load_component(folder, {"UNet2DConditionModel": UNet2DConditionModel}),
    "scheduler": load_scheduler,
    "face_encoder": lambda folder: load_component(folder, {"FaceEncoder": FaceEncoder}),
    "decoders/restoration": lambda folder: load_component(folder, {"ModeDecoder": ModeDecoder}),
    "modes/restoration.safetensors": FreshNetwork().load,
}


def load_and_use(names: set[str], together: bool) -> None:
    """Load the changed parts by themselves, which is quick; or the whole pipeline, and map a face by every mode."""
    if together:
        use(FlipnetPipeline.from_pretrained(CHECKPOINT))
        return
    changed = [part for part in PARTS if any(name == part or name.startswith(f"{part}/") for name in names)]
    # The mode's network is made with the face encoder as it should be.
    for part in changed if "face_encoder" not in changed else changed[:1]:
        PARTS[part](CHECKPOINT / part)
    if "single.safetensors" in names:
        load_single_file(CHECKPOINT / "single.safetensors", "vae")
        load_single_file(CHECKPOINT / "single.safetensors", "unet")


def use(pipeline: FlipnetPipeline) -> None:
    """Map one face of the native size by every mode; what a checkpoint loads is to work."""
    size = pipeline.native_size_px
    if size <= LARGEST_FACE_PX:
        for mode in pipeline.network.adapters:
            pipeline(torch.zeros(1, 3, size, size), mode=mode, num_inference_steps=2, output_type="pt")


def put(changes: Changes) -> None:
    """Write what has changed into the folder."""
    for name, content in changes.items():
        path = CHECKPOINT / name
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            os.symlink(content.target, path)
        elif content is not None:
            path.write_bytes(content)


def restore_folder(names: set[str]) -> None:
    """Bring the folder back to what it was."""
    put({name: WHOLE.get(name) for name in names})
    shutil.rmtree(CHECKPOINT / "decoders/other", ignore_errors=True)


def one_input(data: bytes) -> None:
    """Spoil the checkpoint, load it, and bring it back."""
    choices = Choices(data)
    together = choices.once_in(4)
    changes = spoil(choices, TOGETHER if together else WHOLE)
    names = set(changes)
    try:
        put(changes)
        load_and_use(names, together)
    except FlipnetError as error:
        if "\n" in str(error):
            raise SystemError("a message of several lines") from error
    finally:
        restore_folder(names)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    torch.set_num_threads(1)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
