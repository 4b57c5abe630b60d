"""Numbers of a benchmark by group of faces, and which groups are served worse than the mean.

    flipnet benchmark data/faces512/val.tar -o benchmark.json
    python benchmarks/by_group.py benchmark.json [--part medium] [--margin 0.15]

Groups are read from the faces' names, <source>-<group>-<index>. Prints one Markdown row per group: faces, PSNR,
gradient energy, identity distance of the input and of the restored face, and how far the last is from the mean over
all faces; then the groups above the margin. Groups of few faces say little: the count is in the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

SHOWN = (("psnr_db", "PSNR dB", 2), ("gradient_energy_ratio", "gradient energy", 2))
IDENTITY = "identity_distance"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="JSON report of flipnet benchmark")
    parser.add_argument("--part", default="medium", help="severity")
    parser.add_argument("--margin", type=float, default=0.15, help="share above the mean that is named")
    options = parser.parse_args()
    report = json.loads(options.report.read_text())
    scores = next(part["scores"] for part in report["parts"] if part["name"] == options.part)
    groups: dict[str, list[dict]] = defaultdict(list)
    for face in scores:
        groups[face["key"].rsplit("-", 1)[0]].append(face["columns"])
    mean = _mean([face["columns"] for face in scores], report["main"], IDENTITY)
    labels = [
        "group",
        "faces",
        *(label for _, label, _ in SHOWN),
        "identity: input",
        "restored",
        "off the mean",
    ]
    lines = ["| " + " | ".join(labels) + " |", "|" + "---|" * len(labels)]
    worse = []
    for name, faces in sorted(groups.items()):
        shown = [f"{_mean(faces, report['main'], key):.{digits}f}" for key, _, digits in SHOWN]
        before, after = (_mean(faces, column, IDENTITY) for column in ("input", report["main"]))
        share = after / mean - 1
        cells = [name, str(len(faces)), *shown, f"{before:.3f}", f"{after:.3f}", f"{share:+.0%}"]
        lines.append("| " + " | ".join(cells) + " |")
        if share > options.margin:
            worse.append(f"{name} ({share:+.0%}, {len(faces)} faces)")
    named = ", ".join(worse) or "none"
    lines += ["", f"Mean identity distance {mean:.3f}; more than {options.margin:.0%} above it: {named}."]
    sys.stdout.write("\n".join(lines) + "\n")


def _mean(faces: list[dict], column: str, key: str) -> float:
    return float(np.mean([face[column][key] for face in faces]))


if __name__ == "__main__":
    main()
