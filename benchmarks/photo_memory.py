"""Peak memory and seconds of `flipnet restore` on a 12-megapixel photo with four faces.

    python benchmarks/photo_memory.py

The photo is scikit-image's astronaut, enlarged four times over and tiled to 4000x3000, so that it holds four
faces larger than the model's native size or close to it. Prints one line.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

SIZE_PX = (4000, 3000)


def main() -> None:
    """Make the photo, restore it in a process of its own, print what it took."""
    tile = Image.fromarray(skimage.data.astronaut()).resize((2000, 1500), Image.Resampling.LANCZOS)
    photo = Image.fromarray(np.tile(np.asarray(tile), (2, 2, 1)))
    assert photo.size == SIZE_PX
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        photo.save(path, quality=90)
        started = time.perf_counter()
        command = [sys.executable, "-m", "flipnet", "restore", str(path), "-o", f"{folder}/out"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    sys.stdout.write(
        f"{done.stdout.strip()}\npeak {peak_kib / 2**20:.2f} GiB, {seconds:.1f} s for the whole process\n"
    )


if __name__ == "__main__":
    main()
