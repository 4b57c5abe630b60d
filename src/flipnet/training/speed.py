"""How fast this machine, or one with a known processor, gets through a recipe."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from flipnet.config import Recipe
from flipnet.training.optimizer import make_optimizer
from flipnet.training.shapes import build_shapes, random_batch

# Dense bfloat16 peaks of the makers' data sheets, operations per second.
PEAK_FLOPS = {"A100": 312e12, "H100": 989e12, "RTX 4090": 165e12}
# Share of the peak that training keeps busy: an assumption of ours, not measured.
UTILISATION = 0.35
MEASURABLE_FLOPS = 2e12
TIMED_STEPS = 2


def machine() -> torch.device:
    """Return the accelerator of this machine, the CPU where it has none."""
    # torch names the accelerator that it was built for, whether there is one or not.
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def measured_samples_per_second(recipe: Recipe) -> float:
    """Train a few steps on random weights and random pictures; the fastest counts, data loading left out."""
    device = machine()
    shapes = build_shapes(recipe, device)
    batch = random_batch(recipe, shapes, recipe.optim.batch_size, device)
    optimizer = make_optimizer(shapes.objective, lambda name: 1.0, recipe.optim, device)

    def step() -> None:
        with _autocast(recipe, device):
            total = shapes.objective(batch)["total"]
        total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return recipe.optim.batch_size / _seconds(step, device)


def product_rate(recipe: Recipe) -> float:
    """Operations per second of a 2048-wide matrix product in the recipe's precision on this machine."""
    device, width = machine(), 2048
    a, b = torch.randn(2, width, width, device=device)

    def multiply() -> None:
        with _autocast(recipe, device):
            torch.mm(a, b)

    return 2 * width**3 / _seconds(multiply, device)


def _autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager:
    if recipe.run.precision == "no":
        return nullcontext()
    dtype = torch.bfloat16 if recipe.run.precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype)


def _seconds(action: Callable[[], None], device: torch.device) -> float:
    """Least time of a few calls after one that warms up."""
    action()
    times = []
    for _ in range(TIMED_STEPS):
        _wait(device)
        start = time.perf_counter()
        action()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
