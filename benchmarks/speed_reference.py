"""Seconds per face of GFPGAN's architecture on this machine: the yardstick for our own speed.

    python benchmarks/speed_reference.py [--threads 1] [--repetitions 5] [--save gfpgan-random.safetensors]

Runs where spandrel can be imported (pip install spandrel, which needs torchvision); flipnet itself is not needed.
Weights are random, as only time is asked for: GFPGAN v1.4's settings, one face of 512 pixels, float32. --save
writes the random weights, so that `flipnet benchmark --method gfpgan=FILE` can be tried without the real ones.
Prints one line, to be read beside `flipnet benchmark --time` with as many threads on the same machine.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from spandrel.architectures.GFPGAN import GFPGAN

SIZE_PX = 512


def random_gfpgan() -> torch.nn.Module:
    """Return the network of GFPGAN v1.3 and v1.4 with random weights."""
    torch.manual_seed(0)
    network = GFPGAN(
        out_size=SIZE_PX,
        num_style_feat=512,
        channel_multiplier=2,
        decoder_load_path=None,
        fix_decoder=False,
        num_mlp=8,
        input_is_latent=True,
        different_w=True,
        narrow=1,
        sft_half=True,
    )
    return network.eval().requires_grad_(False)


def main() -> None:
    """Time it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = random_gfpgan()
    if options.save is not None:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, options.save)
    face = torch.rand(1, 3, SIZE_PX, SIZE_PX)
    wall, work = [], []
    for _ in range(1 + options.repetitions):
        begin, cpu = time.perf_counter(), time.process_time()
        network(face)
        wall.append(time.perf_counter() - begin)
        work.append(time.process_time() - cpu)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    sys.stdout.write(
        f"GFPGAN, {parameters / 1e6:.0f} M parameters, float32, {options.threads} threads, torch "
        f"{torch.__version__} on {platform.machine()}: cold {wall[0]:.2f} s, warm "
        f"{statistics.median(wall[1:]):.2f} s (processor {statistics.median(work[1:]):.2f} s), peak "
        f"{peak_mib:.0f} MiB\n"
    )


if __name__ == "__main__":
    main()
