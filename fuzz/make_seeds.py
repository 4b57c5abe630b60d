"""Write the seed corpora that the harnesses start from: one good file of every kind."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/hardening"))

from hostile_pictures import cases  # noqa: E402


def main(output: Path) -> None:
    """Write images/, boxes/, recipes/ and checkpoints/ below `output`."""
    for name in ("images", "boxes", "recipes", "checkpoints"):
        (output / name).mkdir(parents=True, exist_ok=True)
    pictures = [
        case for group in ("modes", "variants", "deep", "frames", "metadata") for case in cases(group)
    ]
    for index, case in enumerate(pictures):
        (output / "images" / f"{index:03}").write_bytes(case.make())
    face = {"box_px": [1, 2, 9.5, 8], "landmarks_px": [[1, 2], [3, 2], [2, 3], [1, 4], [3, 4]]}
    (output / "boxes/good").write_text(json.dumps({"a.jpg": [face], "b.jpg": []}))
    for recipe in (ROOT / "recipes").glob("*.toml"):
        (output / "recipes" / recipe.stem).write_bytes(recipe.read_bytes())
    (output / "recipes/override").write_text("optim.steps=5")
    # Read as a list of choices, any bytes are a fault.
    choices = random.Random(0)
    for index in range(64):
        (output / "checkpoints" / f"{index:02}").write_bytes(choices.randbytes(40))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
