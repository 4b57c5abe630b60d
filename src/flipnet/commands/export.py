"""`flipnet export`: a training run's pipeline as a checkpoint to ship, or its restorer as an ONNX graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import skimage.data
import torch
import typer
from PIL import Image
from torch import Tensor

from flipnet import checkpoints
from flipnet.images import faces_to_tensor
from flipnet.models.backbone import load_vae
from flipnet.models.flipnet import mode_state_dict
from flipnet.models.lora_rank import narrow_lora
from flipnet.pipelines.onnx_export import RestorationGraph, export_onnx
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.types import FlipnetError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

_FACE_BOX = (124, 20, 324, 220)  # in scikit-image's astronaut; roughly where alignment would put the face


def export_model(
    model: str,
    output: Path,
    *,
    vae: Path | None = None,
    dtype: str = "float16",
    steps: Mapping[str, int] | None = None,
    lora_ranks: Mapping[str, int] | None = None,
    average: Sequence[str] = (),
) -> None:
    """Write a checkpoint in another dtype, optionally with another VAE of the same latents, and its checksums.

    Args:
        model: bundled name, folder or hub id.
        output: folder to write; it is replaced when it exists.
        vae: folder of a VAE whose decoder was finished after the restorer was trained.
        dtype: of the stored weights.
        steps: mode name -> denoising steps that the mode takes unless told otherwise.
        lora_ranks: mode name -> rank that its LoRA is narrowed to, see `flipnet.models.lora_rank`.
        average: models whose modes and decoders are averaged with this one's, weight by weight; that helps where
            they are runs from the same weights. UNet, VAE and face encoder stay this model's own.
            Source: "model soups" (Wortsman et al., 2022).

    Raises FlipnetError when the VAE's latents have another shape, averaged models do not have the same modes and
    decoders, or a model cannot be loaded.
    """
    pipeline = _loaded(model, vae)
    if average:
        _average(pipeline, average)
    for mode, rank in (lora_ranks or {}).items():
        pipeline.network.activate(mode)
        kept = narrow_lora(pipeline.network, mode, rank)
        typer.echo(f"{mode}: LoRA of rank {rank}, {kept:.2%} of its energy kept")
    for mode, count in (steps or {}).items():
        pipeline.network.activate(mode)
        pipeline.network.default_steps[mode] = count
    pipeline.save_pretrained(output, dtype=DTYPES[dtype])
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    typer.echo(f"{output}: {size / 2**20:.1f} MiB in {dtype}")


def export_restorer(
    model: str,
    file: Path,
    *,
    vae: Path | None = None,
    dtype: str = "float16",
    steps: int | None = None,
    phi: float = 1.0,
) -> None:
    """Write the restoration mode as one ONNX file, checked against torch on a sample face, sharp and blurred.

    Args:
        model: bundled name, folder or hub id.
        file: to write; it is replaced when it exists.
        vae: as for `export_model`.
        dtype: of the stored weights; they are computed with in float32.
        steps: denoising steps; None takes the mode's own number.
        phi: boosting weight φ >= 0.

    Raises FlipnetError as `export_onnx` does, and when the model cannot be loaded or the file not be written.
    """
    graph = RestorationGraph(_loaded(model, vae), phi=phi, steps=steps)
    # What is bundled has flipnet's licence; of other models only their makers know.
    licence = "Apache-2.0" if model in checkpoints.bundled_names() else f"that of {model}"
    exported = export_onnx(
        graph,
        sample_faces(graph.pipeline.native_size_px),
        model_name=model,
        licence=licence,
        dtype=DTYPES[dtype],
    )
    _write(file, exported.content)
    typer.echo(
        f"{file}: {len(exported.content) / 2**20:.1f} MiB in {dtype}, {graph.steps} steps, phi {phi:g}, "
        f"within {exported.difference:.2g} levels of 255 of torch"
    )


def sample_faces(size_px: int) -> Tensor:
    """Return scikit-image's astronaut, sharp and blurred eightfold: float32 (2, 3, S, S) in [-1, 1]."""
    face = Image.fromarray(skimage.data.astronaut()).crop(_FACE_BOX)
    sharp, small = (face.resize((side, side), Image.Resampling.LANCZOS) for side in (size_px, size_px // 8))
    blurred = small.resize(sharp.size, Image.Resampling.BICUBIC)
    return faces_to_tensor(np.stack([np.asarray(sharp), np.asarray(blurred)]))


def _loaded(model: str, vae: Path | None) -> FlipnetPipeline:
    pipeline = FlipnetPipeline.from_pretrained(model)
    if vae is not None:
        replacement = load_vae(vae).eval()
        image = torch.zeros(1, 3, pipeline.native_size_px, pipeline.native_size_px)
        with torch.no_grad():
            shapes = {tuple(part.encode(image).latents.shape) for part in (pipeline.vae, replacement)}
        if len(shapes) > 1:
            raise FlipnetError(f"{vae}: its latents have another shape than those of {model}")
        pipeline.register_modules(vae=replacement)
    return pipeline


def _average(pipeline: FlipnetPipeline, others: Sequence[str]) -> None:
    """Put the mean over the given models in the place of a pipeline's modes and decoders."""
    weights = _own_weights(pipeline)
    total = {name: tensor.clone() for name, tensor in weights.items()}
    for other in others:
        found = _own_weights(FlipnetPipeline.from_pretrained(other))
        if {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in weights.items()}:
            raise FlipnetError(
                f"{other}: its modes and decoders are not shaped like those it is averaged with"
            )
        for name, tensor in found.items():
            total[name] += tensor
    for name, tensor in weights.items():
        tensor.copy_(total[name] / (1 + len(others)))


def _own_weights(pipeline: FlipnetPipeline) -> dict[str, Tensor]:
    """The tensors of modes and decoders, by names that tell them apart; they are the pipeline's own memory."""
    parts = {mode: mode_state_dict(pipeline.network, mode) for mode in pipeline.network.adapters}
    parts |= {f"decoder of {name}": part.state_dict() for name, part in pipeline.decoders.items()}
    return {f"{part} {name}": tensor for part, state in parts.items() for name, tensor in state.items()}


def _write(file: Path, content: bytes) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, file)
    except OSError as error:
        raise FlipnetError(f"{file}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
