"""Fit NIQE's pristine model to clean faces.

    python benchmarks/fit_niqe.py FACES... -o src/flipnet/evaluation/niqe_faces.safetensors

FACES are tar shards or folders of clean 512-pixel faces, or globs of them. Of every source (the first part of a
face's name) at most --per-source faces are taken, evenly spread over its groups, so that no source decides alone.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from flipnet.data.datasets import FaceDataset, group_of, source_of
from flipnet.evaluation.niqe import fit_model, save_model


def choose(keys: Sequence[str], per_source: int) -> list[int]:
    """Return indices of faces, source by source; a source's groups take turns until it has `per_source`."""
    sources: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, key in enumerate(keys):
        sources[source_of(key)][group_of(key)].append(index)
    chosen = []
    for groups in sources.values():
        ranked = sorted((rank, index) for group in groups.values() for rank, index in enumerate(group))
        chosen += [index for _, index in ranked[:per_source]]
    return chosen


def main() -> None:
    """Choose the faces, fit, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="FACES")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--per-source", type=int, default=560)
    options = parser.parse_args()
    faces = FaceDataset(options.images)
    chosen = choose(faces.keys, options.per_source)
    counts = Counter(source_of(faces.keys[index]) for index in chosen)
    fitted_on = (
        ", ".join(f"{count} {source}" for source, count in sorted(counts.items())) + " faces at 512 px"
    )
    save_model(fit_model(faces.read(index) for index in chosen), options.output, fitted_on)
    sys.stdout.write(f"{options.output}: fitted on {fitted_on}\n")


if __name__ == "__main__":
    main()
