"""What a denoising step costs beside the base UNet's own: python benchmarks/step_cost.py [compact] [sd21].

A step of a mode is timed unfused and with its LoRA fused, the condition's features cached as in sampling, on one
512 px face with random weights; the base is the bare UNet under diffusers' own attention. Target: 1.2 at most.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import typer
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from flipnet.checkpoints import BUNDLED, read_json
from flipnet.models.base import SD21_UNET
from flipnet.models.face_encoder import FaceEncoder
from flipnet.models.flipnet import Flipnet
from flipnet.training.budget import OperationCounter

TARGET = 1.2
BASE, FUSED = "base UNet", "step, LoRA fused"


def bare_unet(size: str) -> UNet2DConditionModel:
    """Return the base's UNet with random weights and diffusers' own attention."""
    if size == "sd21":
        unet = UNet2DConditionModel(**SD21_UNET)
    else:
        unet = UNet2DConditionModel.from_config(read_json(BUNDLED / "compact/unet/config.json"))
    unet.set_attn_processor(AttnProcessor2_0())
    return unet


def with_mode(unet: UNet2DConditionModel, size: str, dtype: torch.dtype) -> Flipnet:
    """Put a restoration mode on the UNet, shaped as its recipe says."""
    network = Flipnet(unet, FaceEncoder(channels=(8, 8), blocks=1, embedding_dim=8))
    tokens = 77 if size == "sd21" else 64
    network.add_mode("restoration", lora_rank=64, rotary=size == "compact", context_tokens=tokens)
    return network.to(dtype=dtype, memory_format=torch.channels_last).eval().requires_grad_(False)


@dataclass(frozen=True)
class Action:
    """Attributes: run: what is timed; prepare: what comes before, untimed."""

    run: Callable[[], object]
    prepare: Callable[[], None] = lambda: None


def least_seconds(actions: dict[str, Action], repeats: int) -> dict[str, float]:
    """Least processor time of each action, taken in turns, so that what else runs disturbs all alike."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats + 1):
        for name, action in actions.items():
            action.prepare()
            start = time.process_time()
            action.run()
            times[name].append(time.process_time() - start)
    return {name: min(values[1:]) for name, values in times.items()}


def operations(action: Action) -> int:
    """Operations of one call."""
    action.prepare()
    with OperationCounter() as counter:
        action.run()
    return counter.total


@torch.no_grad()
def measure(size: str, dtype: torch.dtype, repeats: int) -> None:
    """Print times and operations of the base's step, the mode's step both ways, and the condition pass."""
    torch.manual_seed(0)
    unet = bare_unet(size).to(memory_format=torch.channels_last, dtype=dtype).eval()
    network = with_mode(copy.deepcopy(unet), size, dtype)
    side, channels = unet.config.sample_size, network.latent_channels
    context = torch.randn(1, 77 if size == "sd21" else 64, unet.config.cross_attention_dim, dtype=dtype)
    noisy = torch.randn(1, unet.config.in_channels, side, side, dtype=dtype)
    latents = torch.randn(1, channels, side, side, dtype=dtype)
    embedding = torch.randn(1, network.face_encoder.num_tokens, 8, dtype=dtype)
    condition = network.condition(latents, embedding)
    actions = {
        BASE: Action(lambda: unet(noisy, 500, context, return_dict=False)),
        "step": Action(lambda: network(latents, 500, condition), network.unfuse),
        FUSED: Action(lambda: network(latents, 500, condition), network.fuse),
        "condition pass, once": Action(lambda: network.condition(latents, embedding), network.fuse),
    }
    times = least_seconds(actions, repeats)
    counts = {name: operations(action) for name, action in actions.items()}
    typer.echo(f"{size}, {str(dtype).removeprefix('torch.')}, {torch.get_num_threads()} thread(s)")
    for name in actions:
        typer.echo(
            f"  {name:22} {times[name] * 1e3:9.1f} ms  {times[name] / times[BASE]:5.2f}x"
            f"  {counts[name] / 1e9:8.1f} GFLOP  {counts[name] / counts[BASE]:5.2f}x"
        )
    ratio = times[FUSED] / times[BASE]
    typer.echo(f"  target {TARGET}x: {'met' if ratio <= TARGET else 'missed'}, {ratio:.2f}x")


def main() -> None:
    """Measure the sizes asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=["compact"], choices=["compact", "sd21"])
    parser.add_argument("--dtype", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    for size in arguments.sizes:
        for dtype in arguments.dtype:
            measure(size, getattr(torch, dtype), arguments.repeats)


if __name__ == "__main__":
    main()
