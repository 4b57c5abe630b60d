"""The one training loop: stages differ only in the module they train, the batches they see and what they save."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import ProjectConfiguration, set_seed
from diffusers.training_utils import EMAModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from flipnet.config import OptimConfig, Recipe, save_recipe
from flipnet.data.sampling import SeededBatches
from flipnet.types import FlipnetError

Batch = dict[str, Any]
R = TypeVar("R")


@dataclass(frozen=True)
class TrainingStage:
    """What a stage hands to the loop.

    Attributes:
        objective: a module whose forward(batch) returns named scalar losses, "total" among them; the
            parameters that require gradients are trained.
        batches: maps a first optimiser step to the batches from there on, gradient_accumulation per step.
        validate: returns named numbers with the EMA weights in place.
        save: writes the result (EMA weights in place) into a folder.
        learning_rate_scale: maps a parameter name to a factor on the learning rate.
    """

    objective: nn.Module
    batches: Callable[[int], Iterable[Batch]]
    validate: Callable[[], dict[str, float]]
    save: Callable[[Path], None]
    learning_rate_scale: Callable[[str], float] = field(default=lambda name: 1.0)


def seeded_batches(
    dataset: Dataset[dict[str, Tensor]], weights: np.ndarray, recipe: Recipe
) -> Callable[[int], Iterable[Batch]]:
    """Return what `TrainingStage.batches` wants: items of `dataset` drawn by `weights` (N,) from the run's seed."""

    def batches(start: int) -> Iterable[Batch]:
        optim, run, state = recipe.optim, recipe.run, PartialState()
        micro_steps = optim.gradient_accumulation
        sampler = SeededBatches(
            weights,
            optim.batch_size,
            optim.steps * micro_steps,
            start=start * micro_steps,
            seed=run.seed,
            rank=state.process_index,
            world_size=state.num_processes,
        )
        # A generator of its own: a loader otherwise draws from the global one, and a resumed run would differ.
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=run.workers,
            generator=torch.Generator().manual_seed(0),
        )

    return batches


def learning_rate_factor(step: int, optim: OptimConfig) -> float:
    """Linear warm-up, then cosine to zero at the last step; in [0, 1]."""
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    done = (step - optim.warmup_steps) / max(1, optim.steps - optim.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def train(recipe: Recipe, stage: TrainingStage, output: Path, *, resume: bool = False) -> dict[str, float]:
    """Run a stage to its last step and return the last validation numbers.

    Writes into `output`: recipe.json, log.jsonl (one line per logged step), checkpoints/, final/.
    Raises FlipnetError when a loss becomes non-finite.
    """
    optim, run = recipe.optim, recipe.run
    output.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(
        mixed_precision=run.precision,
        gradient_accumulation_steps=optim.gradient_accumulation,
        log_with=run.tracker,
        project_config=ProjectConfiguration(
            str(output), automatic_checkpoint_naming=False, total_limit=run.checkpoints_total_limit
        ),
    )
    set_seed(run.seed)
    save_recipe(recipe, output / "recipe.json")
    if run.tracker:
        accelerator.init_trackers("tracker")

    # One optimiser over everything that asks for gradients, its learning rate a function of the step.
    stage.objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = _parameter_groups(stage, optim)
    parameters = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, optim.beta2), weight_decay=optim.weight_decay)
    objective, optimizer = accelerator.prepare(stage.objective, optimizer)
    ema = EMAModel(parameters, decay=optim.ema_decay, use_ema_warmup=True, power=0.75)
    counter = _Counter()
    accelerator.register_for_checkpointing(ema, counter)
    if resume:
        accelerator.load_state(str(_latest_checkpoint(output)))
        ema.to(accelerator.device)

    numbers: dict[str, float] = {}
    last_save = last_log = time.monotonic()
    samples_since_log = 0
    with _progress() as progress, (output / "log.jsonl").open("a") as log:
        bar = progress.add_task(recipe.stage, total=optim.steps, completed=counter.step, losses="")
        for batch in stage.batches(counter.step):
            # Forward, backward, and an optimiser step when enough has been accumulated.
            factor = learning_rate_factor(counter.step, optim)
            for group in optimizer.param_groups:
                group["lr"] = optim.learning_rate * group["scale"] * factor
            with accelerator.accumulate(objective):
                losses = objective(_to_device(batch, accelerator.device, counter.step))
                if not torch.isfinite(losses["total"]):
                    raise FlipnetError(f"{output}: the loss became non-finite at step {counter.step}")
                accelerator.backward(losses["total"])
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(parameters, optim.gradient_clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            samples_since_log += optim.batch_size * accelerator.num_processes
            if not accelerator.sync_gradients:
                continue
            ema.step(parameters)
            counter.step += 1

            # Report losses and images per second.
            if counter.step % run.log_every == 0 or counter.step == optim.steps:
                now = time.monotonic()
                numbers_now = {name: float(value.detach()) for name, value in losses.items()}
                numbers_now["images_per_second"] = samples_since_log / (now - last_log)
                last_log, samples_since_log = now, 0
                accelerator.log(numbers_now, step=counter.step)
                log.write(json.dumps({"step": counter.step, **numbers_now}) + "\n")
                log.flush()
                text = " ".join(f"{name} {value:.4g}" for name, value in numbers_now.items())
                progress.update(bar, completed=counter.step, losses=text)

            # Validate with the EMA weights in place; save what a stopped run needs to go on.
            if counter.step % run.validate_every == 0 or counter.step == optim.steps:
                numbers = _with_ema(ema, parameters, objective, stage.validate)
                accelerator.log(numbers, step=counter.step)
                log.write(json.dumps({"step": counter.step, "validation": numbers}) + "\n")
                log.flush()
                last_log = time.monotonic()
            if time.monotonic() - last_save > run.checkpoint_minutes * 60:
                _save_checkpoint(accelerator, output, counter.step, run.checkpoints_total_limit)
                _with_ema(ema, parameters, objective, lambda: stage.save(output / "latest"))
                last_save = time.monotonic()
    _save_checkpoint(accelerator, output, counter.step, run.checkpoints_total_limit)
    _with_ema(ema, parameters, objective, lambda: stage.save(output / "final"))
    accelerator.end_training()
    return numbers


class _Counter:
    """The number of finished optimiser steps, saved with the checkpoint."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


def _parameter_groups(stage: TrainingStage, optim: OptimConfig) -> list[dict[str, Any]]:
    by_scale: dict[float, list[nn.Parameter]] = {}
    for name, parameter in stage.objective.named_parameters():
        if parameter.requires_grad:
            by_scale.setdefault(stage.learning_rate_scale(name), []).append(parameter)
    return [
        {"params": parameters, "lr": optim.learning_rate, "scale": scale}
        for scale, parameters in by_scale.items()
    ]


def _to_device(batch: Batch, device: torch.device, step: int) -> Batch:
    moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    return {**moved, "step": step}


def _with_ema(
    ema: EMAModel, parameters: list[nn.Parameter], objective: nn.Module, action: Callable[[], R]
) -> R:
    ema.store(parameters)
    ema.copy_to(parameters)
    objective.eval()
    try:
        with torch.no_grad():
            return action()
    finally:
        ema.restore(parameters)
        objective.train()


def _save_checkpoint(accelerator: Accelerator, output: Path, step: int, limit: int) -> None:
    folder = output / "checkpoints" / f"step-{step:08d}"
    partial = folder.with_name(f".{folder.name}.partial")
    accelerator.save_state(str(partial))
    if accelerator.is_main_process:
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        for old in sorted(folder.parent.glob("step-*"))[:-limit]:
            shutil.rmtree(old)


def _latest_checkpoint(output: Path) -> Path:
    found = sorted((output / "checkpoints").glob("step-*"))
    if not found:
        raise FlipnetError(f"{output}: no checkpoint to resume from")
    return found[-1]


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
        console=Console(stderr=True),
    )
