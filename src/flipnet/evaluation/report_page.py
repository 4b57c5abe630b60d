"""The report as one HTML file that needs nothing else: style, script, numbers and pictures are inside it."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flipnet.images import resize
from flipnet.types import FlipnetError

WORST = 20
"""Pictures in the worst view; the page holds these for every metric, and others up to its limit."""

PICTURE_PX = 384
"""Longest side of a picture on the page."""

_PAGE = Path(__file__).parent / "page"

Pictures = dict[str, dict[str, str]]
"""Data URIs of one part, by key and column."""


def data_uri(pixels: np.ndarray, *, lossless: bool = False) -> str:
    """Encode uint8 (H, W, 3) RGB as a data URI: WebP at most `PICTURE_PX` wide and high, or PNG as it is."""
    height, width = pixels.shape[:2]
    scale = PICTURE_PX / max(height, width)
    if scale < 1 and not lossless:
        pixels = resize(pixels, (max(1, round(width * scale)), max(1, round(height * scale))))
    kind = "png" if lossless else "webp"
    with BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, format=kind, **({} if lossless else {"quality": 82}))
        return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def keys_to_show(
    part: Mapping[str, Any], main: str, metrics: Sequence[Mapping[str, Any]], limit: int
) -> set[str]:
    """Choose the pictures worth their bytes: the worst of every metric first, the rest evenly, up to `limit`.

    Args:
        part: one of the document's "parts".
        main: the column judged.
        metrics: the document's "metrics".
        limit: most pictures.
    """
    keys = [row["key"] for row in part["scores"]]
    ranked = [worst_first(part, main, metric)[:WORST] for metric in metrics if metric["of"] == "image"]
    # Rank by rank, so that a small limit still holds the very worst of every metric.
    chosen = dict.fromkeys(key for rank in range(WORST) for keys_ in ranked for key in keys_[rank : rank + 1])
    count = min(limit, len(keys))
    chosen |= dict.fromkeys(keys[index * len(keys) // count] for index in range(count))
    return set(list(chosen)[:limit])


def worst_first(part: Mapping[str, Any], column: str, metric: Mapping[str, Any]) -> list[str]:
    """Keys from the worst number of a metric to the best; pictures without a number are left out."""
    found = []
    for row in part["scores"]:
        value = row["columns"][column].get(metric["name"])
        if value is not None:
            badness = abs(float(value) - 1) if metric["better"] == "one" else float(value)
            found.append((-badness if metric["better"] == "higher" else badness, row["key"]))
    return [key for _, key in sorted(found, key=lambda pair: pair[0], reverse=True)]


def render_page(document: Mapping[str, Any], pictures: Mapping[str, Pictures], title: str) -> str:
    """Return the page.

    Args:
        document: what `report.document` returned.
        pictures: by part's name; see `data_uri`.
        title: heading, plain text.
    """
    data = json.dumps({"report": document, "pictures": pictures, "worst": WORST}, ensure_ascii=False)
    # Inside a script element only "<" can do harm, as in "</script>" or "<!--".
    parts = {"DATA": data.replace("<", "\\u003c"), "TITLE": _escape(title)}
    parts |= {"STYLE": _page_file("report.css"), "SCRIPT": _page_file("report.js")}
    pieces = _page_file("report.html").split("%%")
    # "text%%NAME%%text": every second piece is a name.
    return "".join(parts[piece] if index % 2 else piece for index, piece in enumerate(pieces))


def write_page(path: Path, page: str) -> None:
    """Write the page whole or not at all; FlipnetError names the file when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))
        os.replace(temporary, path)
    except OSError as error:
        raise FlipnetError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _page_file(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
