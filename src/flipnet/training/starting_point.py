"""What a mode's training starts from: a finished pipeline, or a bare base with a face encoder."""

from __future__ import annotations

from pathlib import Path

from flipnet.checkpoints import bundled_names
from flipnet.models.backbone import downscale_factor, load_component
from flipnet.models.base import load_base
from flipnet.models.face_encoder import FaceEncoder
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.types import FlipnetError


def starting_pipeline(
    base: str, face_encoder: str | None, size_px: int, prediction_type: str | None = None
) -> FlipnetPipeline:
    """Return the pipeline that a mode is added to.

    Args:
        base: a pipeline of flipnet's (bundled name or folder), which brings its face encoder and modes along; or
            any base that `models.base.load_base` takes.
        face_encoder: folder that stage II wrote, for a bare base.
        size_px: side of the faces a bare base is to work on.
        prediction_type: of a single-file base.

    Raises FlipnetError (CheckpointError) with one sentence that names the base and why it cannot be used.
    """
    if base in bundled_names() or (Path(base) / "face_encoder").is_dir():
        return FlipnetPipeline.from_pretrained(base)
    parts = load_base(base, prediction_type)
    if face_encoder is None:
        raise FlipnetError(
            f"{base}: a bare base needs a face encoder, set face_encoder to stage II's folder."
        )
    encoder = load_component(Path(face_encoder), {"FaceEncoder": FaceEncoder}).without_decoders()
    factor = downscale_factor(parts.vae)
    if size_px % factor:
        raise FlipnetError(
            f"data.size_px: {size_px} is not a multiple of {factor}, the VAE's factor of {base}."
        )
    parts.unet.register_to_config(sample_size=size_px // factor)
    return FlipnetPipeline(parts.vae, parts.unet, parts.scheduler, encoder)
