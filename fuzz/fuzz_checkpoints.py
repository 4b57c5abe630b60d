"""A tiny checkpoint, one file of it spoilt: a pipeline or a `FlipnetError`, nothing else. See README.md."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

with atheris.instrument_imports(
    include=["flipnet.checkpoints", "flipnet.models", "flipnet.pipelines.pipeline"]
):
    from flipnet.pipelines.pipeline import FlipnetPipeline

from flipnet.types import FlipnetError
from tiny import tiny_pipeline

FOLDER = Path(tempfile.mkdtemp(prefix="flipnet-fuzz-"))
WHOLE, SPOILT = FOLDER / "whole", FOLDER / "spoilt"
tiny_pipeline().save_pretrained(WHOLE)
FILES = sorted(path.relative_to(WHOLE) for path in WHOLE.rglob("*") if path.is_file())


def one_input(data: bytes) -> None:
    """Spoil one file: all of it, or some bytes of it, and load the folder."""
    choices = atheris.FuzzedDataProvider(data)
    name = choices.PickValueInList(FILES)
    content = bytearray((WHOLE / name).read_bytes())
    if choices.ConsumeBool():
        content = bytearray(choices.ConsumeBytes(1 << 16))
    else:
        for _ in range(choices.ConsumeIntInRange(1, 8)):
            content[choices.ConsumeIntInRange(0, min(len(content), 2000) - 1)] = choices.ConsumeIntInRange(
                0, 255
            )
    shutil.rmtree(SPOILT, ignore_errors=True)
    shutil.copytree(WHOLE, SPOILT)
    (SPOILT / name).write_bytes(content)
    try:
        FlipnetPipeline.from_pretrained(SPOILT)
    except FlipnetError as error:
        if "\n" in str(error):
            raise SystemError("a message of several lines") from error


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
