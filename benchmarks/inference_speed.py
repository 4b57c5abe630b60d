"""Seconds per face by engine, threads and batch; what start-up and each part of a restoration take.

    python benchmarks/inference_speed.py [--model compact] [--threads 1 2] [--batches 1 4] [--repeats 5]
                                         [--compile] [--skip-start | --only-start]

Every number is the least of several repeats: "wall" is what a clock shows, "CPU" what the process used of its
processors, which another program on the same machine disturbs less. --compile adds torch.compile, whose first face
takes minutes; OpenVINO is measured where it is installed. Start-up runs in processes of its own, on scikit-image's
astronaut, one after another in turns, each on all the threads it takes by itself (OMP_NUM_THREADS=1 for one).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import skimage.data
import torch
from PIL import Image

from flipnet.commands.export import sample_faces
from flipnet.pipelines.onnx_export import RestorationGraph, export_onnx
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.pipelines.sampling import denoise, initial_noise

WARM_START = """
from flipnet.pipelines.restore import FaceRestorer
import torch
FaceRestorer.from_checkpoint({model!r}, own_mode_only={alone})(torch.zeros(1, 3, 512, 512), [0])
"""


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="compact")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--skip-start", action="store_true")
    start.add_argument("--only-start", action="store_true")
    options = parser.parse_args()
    graph = RestorationGraph(FlipnetPipeline.from_pretrained(options.model))
    faces = sample_faces(graph.pipeline.native_size_px)
    exported = export_onnx(graph, faces, model_name=options.model, licence="")
    say(f"onnx: {len(exported.content) / 2**20:.1f} MiB, within {exported.difference:.2g} levels of torch")
    if options.only_start:
        start_up(options.model, exported.content, options.repeats)
        return
    for threads in options.threads:
        torch.set_num_threads(threads)
        engines = engines_of(graph, exported.content, threads, compiles=options.compile)
        for batch in options.batches:
            batched = faces[:1].expand(batch, -1, -1, -1).contiguous()
            for name, restore in engines.items():
                wall, cpu = (t / batch for t in least(lambda r=restore, f=batched: r(f), options.repeats))
                say(f"{name}, {threads} threads, batch {batch}: {wall:.2f} s per face, CPU {cpu:.2f}")
        for name, (wall, cpu) in parts(graph, faces[:1], options.repeats).items():
            say(f"  {name}, {threads} threads, bf16 if the CPU has it: {wall:.3f} s, CPU {cpu:.3f}")
    if not options.skip_start:
        start_up(options.model, exported.content, options.repeats)


def engines_of(
    graph: RestorationGraph, content: bytes, threads: int, *, compiles: bool
) -> dict[str, Callable[[torch.Tensor], object]]:
    """Return ways to restore faces (B, 3, S, S) by name."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])

    def run_torch(precision: str, network: Callable = graph) -> Callable[[torch.Tensor], object]:
        @torch.inference_mode()
        def restore(faces: torch.Tensor) -> object:
            graph.pipeline.precision = precision
            with graph.pipeline.autocast():
                return network(faces, torch.zeros(len(faces), *graph.noise_shape))

        return restore

    def run_onnx(faces: torch.Tensor) -> object:
        noise = np.zeros((len(faces), *graph.noise_shape), np.float32)
        return session.run(None, {"face": faces.numpy(), "noise": noise})

    engines = {"torch float32": run_torch("no"), "torch bf16": run_torch("bf16"), "onnxruntime": run_onnx}
    if importlib.util.find_spec("openvino") is not None:
        for precision in ("f32", "bf16"):
            engines[f"openvino {precision}"] = run_openvino(graph, content, threads, precision)
    if compiles:
        engines["torch.compile float32"] = run_torch("no", torch.compile(graph))
    return engines


def run_openvino(
    graph: RestorationGraph, content: bytes, threads: int, precision: str
) -> Callable[[torch.Tensor], object]:
    """Return a way to restore faces with OpenVINO, which is no dependency: pip install openvino."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(content), "CPU", settings)

    def restore(faces: torch.Tensor) -> object:
        return compiled((faces.numpy(), np.zeros((len(faces), *graph.noise_shape), np.float32)))

    return restore


@torch.inference_mode()
def parts(graph: RestorationGraph, faces: torch.Tensor, repeats: int) -> dict[str, tuple[float, float]]:
    """Return what each part of a restoration takes (wall, CPU), in the pipeline's own precision."""
    pipeline = graph.pipeline
    pipeline.precision = "auto"
    network = pipeline.network
    noise = initial_noise([torch.Generator().manual_seed(0)], graph.noise_shape, pipeline.device)
    with pipeline.autocast():
        latents, features = pipeline.encode(faces)
        embedding = network.embed(faces)
        condition = network.condition(latents, embedding)
        return {
            "encode": least(lambda: pipeline.encode(faces), repeats),
            "embed": least(lambda: network.embed(faces), repeats),
            "condition": least(lambda: network.condition(latents, embedding), repeats),
            "one step": least(
                lambda: denoise(lambda x, t: network(x, t, condition), pipeline.scheduler, noise, 1), repeats
            ),
            "decode": least(lambda: pipeline.decode(latents, features), repeats),
        }


@torch.inference_mode()
def least(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the least (wall, CPU) seconds of a call, after one that is not counted."""
    call()
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return min(walls), min(cpus)


def start_up(model: str, onnx: bytes, repeats: int) -> None:
    """Print what new processes take, and which packages' imports that is; `onnx` is the model's exported file."""
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(skimage.data.astronaut()).save(f"{folder}/photo.png")
        Path(folder, "restorer.onnx").write_bytes(onnx)
        restore = ["-m", "flipnet", "restore", f"{folder}/photo.png", "-o", f"{folder}/out", "--overwrite"]
        processes = {
            "import torch": ["-c", "import torch"],
            "import flipnet.pipelines.restore": ["-c", "import flipnet.pipelines.restore"],
            "import, load, first face": ["-c", WARM_START.format(model=model, alone=True)],
            "the same with all modes": ["-c", WARM_START.format(model=model, alone=False)],
            "flipnet restore, one photo": [*restore, "--model", model],
            "flipnet restore --model restorer.onnx": [*restore, "--model", f"{folder}/restorer.onnx"],
        }
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in processes}
        # In turns, so that a busy minute of the machine meets them all.
        for _ in range(repeats):
            for name, arguments in processes.items():
                runs[name].append(process_seconds([sys.executable, *arguments]))
        for name, seconds in runs.items():
            wall, cpu = (min(column) for column in zip(*seconds, strict=True))
            say(f"{name}: {wall:.1f} s, CPU {cpu:.1f}")
    command = [sys.executable, "-X", "importtime", "-c", "import flipnet.pipelines.restore"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    times = Counter()
    for own, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\w+)", log):
        times[name] += int(own)
    shares = (f"{name} {100 * own / times.total():.0f} %" for name, own in times.most_common(8))
    say(f"imports by package: {', '.join(shares)}")


def process_seconds(command: list[str]) -> tuple[float, float]:
    """Run a command and return its (wall, CPU) seconds."""
    before, started = os.times(), time.perf_counter()
    subprocess.run(command, capture_output=True, check=True, cwd=Path.cwd())
    wall, after = time.perf_counter() - started, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu


def say(line: str) -> None:
    """Print at once: a table takes minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
