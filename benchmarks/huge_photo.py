"""Peak memory and seconds of `flipnet restore` on a 100-megapixel photo, and on a photo with 200 faces.

    python benchmarks/huge_photo.py [megapixels | faces] [--format jpg] [--steps 1]

Both photos are tiled from scikit-image's astronaut: 11,600x8,700 pixels with one face (the rest is sky-like noise),
or 20x10 faces of 256 pixels each. Each runs in a process of its own. Prints one line.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

HUGE_PX = (11_600, 8_700)


def huge_photo() -> Image.Image:
    """100.9 megapixels, one face of some 1,500 pixels."""
    portrait = Image.fromarray(skimage.data.astronaut()).resize((4000, 4000), Image.Resampling.LANCZOS)
    noise = np.random.default_rng(0).integers(90, 170, (HUGE_PX[1] // 50, HUGE_PX[0] // 50, 3), np.uint8)
    photo = Image.fromarray(noise).resize(HUGE_PX, Image.Resampling.BICUBIC)
    photo.paste(portrait, (3000, 2000))
    return photo


def many_faces() -> Image.Image:
    """Two hundred faces."""
    cut = skimage.data.astronaut()[:256, 96:352]
    return Image.fromarray(np.tile(cut, (10, 20, 1)))


def main() -> None:
    """Make the photo, restore it in a process of its own, print what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["megapixels", "faces"], nargs="?", default="megapixels")
    parser.add_argument("--format", default="jpg")
    parser.add_argument("--steps", default="1")
    parser.add_argument("--model", default="compact")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"photo.{asked.format}"
        photo = huge_photo() if asked.what == "megapixels" else many_faces()
        photo.save(path)
        size = photo.size
        del photo
        started = time.perf_counter()
        command = [sys.executable, "-m", "flipnet", "restore", str(path), "-o", f"{folder}/out"]
        command += ["--steps", asked.steps, "--model", asked.model]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    sys.stdout.write(
        f"{size[0]}x{size[1]} {asked.format}: {done.stdout.splitlines()[0]}\n"
        f"peak {peak_kib / 2**20:.2f} GiB, {seconds:.1f} s for the whole process\n"
    )


if __name__ == "__main__":
    main()
