"""A small HTTP service: POST a photo, get it back with its faces restored.

    pip install fastapi uvicorn
    uvicorn serve_fastapi:app --app-dir examples --port 8000
    curl --data-binary @old.jpg -o new.png "http://127.0.0.1:8000/restore?phi=1.0&seed=0"
    curl --data-binary @old.jpg "http://127.0.0.1:8000/faces"

The body is the picture file itself. Pictures above `MAX_BYTES` are refused; one restoration runs at a time, as it
uses all cores; nothing is kept. There is no authentication: put it behind something that has one.
"""

from __future__ import annotations

import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Query, Response

import flipnet

MAX_BYTES = 32 << 20
MODEL = "compact"

app = FastAPI(title="flipnet", version=flipnet.__version__)
_one_at_a_time = threading.Lock()

Picture = Annotated[bytes, Body(media_type="application/octet-stream")]


@cache
def restorer() -> flipnet.PhotoRestorer:
    """Load the model at the first request."""
    return flipnet.load(MODEL)


# Plain functions, not async ones: FastAPI runs them in threads, so that waiting requests do not block.
@app.post("/restore", responses={200: {"content": {"image/png": {}}}}, response_class=Response)
def restore(
    picture: Picture,
    phi: Annotated[float, Query(ge=0, le=2)] = 1.0,
    seed: Annotated[int, Query(ge=0, lt=2**32)] = 0,
    upscale: Annotated[int, Query(ge=1, le=4)] = 1,
) -> Response:
    """Return the photo as PNG, marked as AI-restored."""
    with tempfile.TemporaryDirectory() as folder, _one_at_a_time:
        restorer().faces.phi = phi
        result = _checked(restorer().restore_photo, _stored(picture, folder), seed=seed, upscale=upscale)
        output = Path(folder) / "result.png"
        flipnet.write_photo(output, flipnet.mark_as_restored(result.photo, model=MODEL))
        restored = sum(face.status == "restored" for face in result.faces)
        return Response(output.read_bytes(), 200, {"X-Faces-Restored": str(restored)}, "image/png")


@app.post("/faces")
def faces(picture: Picture) -> list[dict[str, Any]]:
    """List the faces of a photo, largest first, boxes in pixels of the upright photo."""
    with tempfile.TemporaryDirectory() as folder, _one_at_a_time:
        photo = _checked(flipnet.read_photo, _stored(picture, folder))
        found = restorer().detector(photo.pixels if photo.pixels.dtype == "uint8" else photo.pixels // 257)
    return [{"index": i, "box_px": face.box_px, "score": face.score} for i, face in enumerate(found)]


def _stored(picture: bytes, folder: str) -> Path:
    if len(picture) > MAX_BYTES:
        raise HTTPException(413, f"pictures of at most {MAX_BYTES >> 20} MiB are taken")
    path = Path(folder) / "upload"
    path.write_bytes(picture)
    return path


def _checked(function: Any, path: Path, **options: Any) -> Any:
    """Call a function of flipnet; what is wrong with the picture becomes the answer 422."""
    try:
        return function(path, **options)
    except flipnet.FlipnetError as error:
        raise HTTPException(422, str(error).removeprefix(f"{path}: ")) from error
