"""A batch that is killed again and again: is every photo restored once, and is nothing half-written left?

    python benchmarks/kill_test.py [--photos 50] [--kills 20] [--model FOLDER] [--aligned]

Starts `flipnet restore --skip-existing` over the photos, kills it (SIGKILL) at a random moment, and so on, then
lets it finish. Prints one line; exit code 1 if a photo is missing, differs from an unbroken run, was restored
twice, or a half-written file counts as a result.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

import flipnet.commands.restore
import flipnet.pipelines.photo_restorer  # noqa: F401  loaded once, before the processes are forked
from flipnet.cli import main as flipnet_main

FORK = multiprocessing.get_context("fork")


def make_photos(folder: Path, count: int, side_px: int) -> None:
    """Write `count` different square cuts of scikit-image's astronaut, one face each."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for index in range(count):
        x, y = rng.integers(70, 120), rng.integers(0, 20)
        cut = Image.fromarray(skimage.data.astronaut()[y : y + 256, x : x + 256])
        cut.resize((side_px, side_px), Image.Resampling.LANCZOS).save(folder / f"{index:03}.png")


def pixels(path: Path) -> np.ndarray:
    """Decode a whole picture."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def start(arguments: list[str]) -> multiprocessing.Process:
    """Run the command line in a process of its own; forked, as loading torch anew is most of a short run's time."""
    process = FORK.Process(target=main_and_exit, args=(arguments,))
    process.start()
    return process


def main_and_exit(arguments: list[str]) -> None:
    """Run the command line quietly and leave with its exit code."""
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    try:
        flipnet_main(arguments)
    except SystemExit as stopped:
        os._exit(int(stopped.code or 0))


def finish(arguments: list[str]) -> None:
    """Run the command line to its end, which must be a good one."""
    process = start(arguments)
    process.join()
    if process.exitcode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.exitcode}")


def kill_at_random(arguments: list[str], output: Path, rng: np.random.Generator) -> bool:
    """Start the command and kill it some time after its first new result; False if it ended before."""
    already = len(list(output.glob("*.png")))
    process = start(arguments)
    # The first moments are all start-up: there is nothing to break.
    while process.is_alive() and len(list(output.glob("*.png"))) <= already:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.15))
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive


def main() -> None:
    """Kill, go on, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=50)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--aligned", action="store_true")
    asked = parser.parse_args()
    rng = np.random.default_rng(2)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_photos(root / "in", asked.photos, 64 if asked.aligned else 256)
        base = ["restore", str(root / "in"), "--model", asked.model, "--steps", "1", "--device", "cpu"]
        base += ["--aligned"] if asked.aligned else []
        finish([*base, "-o", str(root / "unbroken")])
        output, report = root / "out", root / "report.json"
        again = [*base, "-o", str(output), "--skip-existing", "--report", str(report)]
        written: dict[str, int] = {}
        kills = 0
        for _ in range(asked.kills):
            kills += kill_at_random(again, output, rng)
            for path in output.glob("*.png"):
                changed = written.setdefault(path.name, path.stat().st_mtime_ns)
                if changed != path.stat().st_mtime_ns:
                    raise SystemExit(f"{path.name} was restored twice")
        before = len(written)
        finish(again)
        names = sorted(path.name for path in (root / "in").iterdir())
        results = sorted(path.name for path in output.iterdir() if not path.name.startswith("."))
        if results != names:
            raise SystemExit(f"expected {len(names)} results, found {results}")
        for name in names:
            if not np.array_equal(pixels(output / name), pixels(root / "unbroken" / name)):
                raise SystemExit(f"{name} differs from an unbroken run")
        photos = json.loads(report.read_text())["photos"]
        if len(photos) != asked.photos or {photo["status"] for photo in photos} - {"restored", "skipped"}:
            raise SystemExit("the report is not complete")
        strays = len(list(output.iterdir())) - len(results)
        sys.stdout.write(
            f"{kills} kills, {before} of {asked.photos} photos were done before the last run; "
            f"all are whole and equal an unbroken run's; {strays} hidden leftovers\n"
        )


if __name__ == "__main__":
    main()
