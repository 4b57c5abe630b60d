"""Seconds and peak memory of a model, per face and per whole photo, in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import skimage.data
import torch

from flipnet.faces.detect import CenterFaceDetector
from flipnet.faces.photo import restore_photo
from flipnet.images import Photo, faces_to_tensor
from flipnet.pipelines.restore import FaceRestorer

REPETITIONS = 5
"""Warm calls, of which the median counts."""


@dataclass(frozen=True)
class Speed:
    """What one kind of call takes.

    Attributes:
        model: name or folder.
        what: "face" (aligned, native size) or "photo" (512 x 512, one face: found, aligned, restored, pasted).
        steps: denoising steps.
        device: "cpu", "cuda", ...
        dtype: what the network computes in.
        threads: of torch on the CPU.
        load_s: from nothing to a loaded model, imports left out.
        cold_s: the first call after loading.
        warm_s: median of later calls.
        warm_cpu_s: the same in processor time of all threads, which other programs on the machine hardly change.
        peak_mib: most memory of the process up to then, and of the GPU's where it is used.
    """

    model: str
    what: str
    steps: int
    device: str
    dtype: str
    threads: int
    load_s: float
    cold_s: float
    warm_s: float
    warm_cpu_s: float
    peak_mib: float


def measure_speed(
    model: str, *, phi: float, steps: int | None, device: str, threads: int
) -> list[dict[str, Any]]:
    """Measure a flipnet model in a fresh process and return one row per kind of call, as JSON types.

    Raises FlipnetError as `FaceRestorer.from_checkpoint` does.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, model, phi, steps, device, threads).result()


def _measure(model: str, phi: float, steps: int | None, device: str, threads: int) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    begin = time.perf_counter()
    restorer = FaceRestorer.from_checkpoint(model, phi=phi, steps=steps, device=device)
    load_s = time.perf_counter() - begin
    side = restorer.native_size_px
    face = faces_to_tensor(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    photo, detector = Photo(skimage.data.astronaut()), CenterFaceDetector()
    calls = {
        "face": lambda: restorer(face, [0]),
        "photo": lambda: restore_photo(photo, restorer, detector, seed=0),
    }
    rows = []
    for what, call in calls.items():
        seconds, processor = [], []
        for _ in range(1 + REPETITIONS):
            begin, begin_cpu = time.perf_counter(), time.process_time()
            call()
            seconds.append(time.perf_counter() - begin)
            processor.append(time.process_time() - begin_cpu)
        rows.append(
            Speed(
                model=model,
                what=what,
                steps=restorer.steps,
                device=restorer.device,
                dtype=_dtype(restorer),
                threads=torch.get_num_threads(),
                load_s=load_s,
                cold_s=seconds[0],
                warm_s=float(np.median(seconds[1:])),
                warm_cpu_s=float(np.median(processor[1:])),
                peak_mib=_peak_mib(restorer.device),
            )
        )
    return [asdict(row) for row in rows]


def _dtype(restorer: FaceRestorer) -> str:
    with restorer.pipeline.autocast():
        if torch.is_autocast_enabled(torch.device(restorer.device).type):
            return "bfloat16 (autocast)"
    return str(restorer.pipeline.network.unet.dtype).removeprefix("torch.")


def _peak_mib(device: str) -> float:
    # Kilobytes, but bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    if device.startswith("cuda"):
        peak += torch.cuda.max_memory_allocated() / 2**20
    return peak
