"""`flipnet export`: a training run's pipeline as a checkpoint to ship."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import typer

from flipnet.models.backbone import load_vae
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.types import FlipnetError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def export_model(
    model: str,
    output: Path,
    *,
    vae: Path | None = None,
    dtype: str = "float16",
    steps: Mapping[str, int] | None = None,
) -> None:
    """Write a checkpoint in another dtype, optionally with another VAE of the same latents, and its checksums.

    Args:
        model: bundled name, folder or hub id.
        output: folder to write; it is replaced when it exists.
        vae: folder of a VAE whose decoder was finished after the restorer was trained.
        dtype: of the stored weights.
        steps: mode name -> denoising steps that the mode takes unless told otherwise.

    Raises FlipnetError when the VAE's latents have another shape or the model cannot be loaded.
    """
    pipeline = FlipnetPipeline.from_pretrained(model)
    if vae is not None:
        replacement = load_vae(vae).eval()
        image = torch.zeros(1, 3, pipeline.native_size_px, pipeline.native_size_px)
        with torch.no_grad():
            shapes = {tuple(part.encode(image).latents.shape) for part in (pipeline.vae, replacement)}
        if len(shapes) > 1:
            raise FlipnetError(f"{vae}: its latents have another shape than those of {model}")
        pipeline.register_modules(vae=replacement)
    for mode, count in (steps or {}).items():
        pipeline.network.activate(mode)
        pipeline.network.default_steps[mode] = count
    pipeline.save_pretrained(output, dtype=DTYPES[dtype])
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    typer.echo(f"{output}: {size / 2**20:.1f} MiB in {dtype}")
