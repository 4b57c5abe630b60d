"""The optimiser of a run: parameter groups, AdamW or its 8-bit kin, the learning rate as a function of the step."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from flipnet.config import OptimConfig
from flipnet.types import FlipnetError


def learning_rate_factor(step: int, optim: OptimConfig) -> float:
    """Linear warm-up, then cosine to zero at the last step; in [0, 1]."""
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    done = (step - optim.warmup_steps) / max(1, optim.steps - optim.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, optim: OptimConfig) -> None:
    """Give every group the learning rate of a step, times the group's own scale."""
    factor = learning_rate_factor(step, optim)
    for group in optimizer.param_groups:
        group["lr"] = optim.learning_rate * group["scale"] * factor


def make_optimizer(
    objective: nn.Module, scale: Callable[[str], float], optim: OptimConfig, device: torch.device
) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over every parameter that asks for gradients, grouped by learning rate scale.

    Args:
        scale: maps a parameter's name to a factor on the learning rate.
        device: where the parameters will live; CUDA gets the fused AdamW, which launches one kernel a step.

    Raises FlipnetError when 8-bit Adam is asked for and bitsandbytes is not installed.
    """
    by_scale: dict[float, list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            by_scale.setdefault(scale(name), []).append(parameter)
    groups = [
        {"params": parameters, "lr": optim.learning_rate * factor, "scale": factor}
        for factor, parameters in by_scale.items()
    ]
    settings: dict[str, Any] = {"betas": (0.9, optim.beta2), "weight_decay": optim.weight_decay}
    if optim.optimizer == "adamw8bit":
        return _bitsandbytes().optim.AdamW8bit(groups, **settings)
    return torch.optim.AdamW(groups, fused=device.type == "cuda", **settings)


def trained_parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Return all parameters of an optimiser, group after group."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _bitsandbytes() -> Any:
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise FlipnetError(
            'optim.optimizer: "adamw8bit" needs bitsandbytes, which is not installed: '
            'pip install "flipnet[adam8bit]".'
        ) from error
