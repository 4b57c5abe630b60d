"""Whether `flipnet restore` keeps memory over a long batch: resident memory after every photo, and its slope.

    python benchmarks/memory_growth.py [--photos 300] [--model FOLDER] [--steps 1]

The photos are 256x256 cuts of scikit-image's astronaut with one face each; a smaller model than the shipped one
makes it faster. The slope is fitted over the second half, when caches are full. Prints one line.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from flipnet.commands.outputs import Job, OutputNaming
from flipnet.commands.report import PhotoStatus
from flipnet.commands.restore import JobRestorer, RestoreSettings


def resident_mib() -> float:
    """Resident memory of this process, from Linux's /proc."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    """Restore the photos one after the other in this process and fit the slope."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--steps", type=int)
    asked = parser.parse_args()
    portrait = skimage.data.astronaut()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        restore = JobRestorer(RestoreSettings(OutputNaming(output), model=asked.model, steps=asked.steps))
        memory = []
        for index in range(asked.photos):
            x, y = rng.integers(70, 120), rng.integers(0, 20)
            source = Path(folder) / f"{index:04}.jpg"
            Image.fromarray(portrait[y : y + 256, x : x + 256]).save(source, quality=90)
            record = restore(Job(source, output / source.name), source)
            if record.status is not PhotoStatus.RESTORED:
                raise SystemExit(f"{source.name}: {record.cause}")
            memory.append(resident_mib())
            os.unlink(source)
    late = np.array(memory[len(memory) // 2 :])
    slope = np.polyfit(np.arange(len(late)), late, 1)[0]
    sys.stdout.write(
        f"{asked.photos} photos: {memory[0]:.0f} MiB after the first, {memory[len(memory) // 2]:.0f} half-way, "
        f"{memory[-1]:.0f} at the end; slope over the second half {1024 * slope:+.1f} KiB per photo\n"
    )


if __name__ == "__main__":
    main()
