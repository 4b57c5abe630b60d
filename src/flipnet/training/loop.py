"""The one training loop: stages differ only in the module they train, the batches they see and what they save.

Built on accelerate: one process or many, DDP, FSDP2 or DeepSpeed, as accelerate's own config says.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.utils import ProjectConfiguration, parse_flag_from_env, set_seed
from diffusers import ModelMixin
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from flipnet.config import OptimConfig, Recipe, RunConfig
from flipnet.data.sampling import Draw, SeededBatches
from flipnet.training.checkpointing import (
    EmaWeights,
    StepCounter,
    load_latest_checkpoint,
    refuse_unsupported_sharding,
    save_checkpoint,
    save_trained_alone,
    whole_weights,
)
from flipnet.training.optimizer import make_optimizer, set_learning_rate, trained_parameters
from flipnet.training.run_log import Pictures, RunLog, require_tracker
from flipnet.training.stopping import StepVotes, StopSignals, TrainingStoppedError
from flipnet.types import FlipnetError

Batch = dict[str, Any]
# How long processes wait for each other: the first one may fill caches of latents for hours.
PATIENCE = timedelta(hours=24)


@dataclass(frozen=True)
class TrainingStage:
    """What a stage hands to the loop.

    Attributes:
        objective: a module whose forward(batch) returns named scalar losses, "total" among them; the
            parameters that require gradients are trained. A loss that says nothing of this batch is NaN.
        batches: maps a first optimiser step to the batches from there on, gradient_accumulation per step.
        validate: returns named numbers with the EMA weights in place; called in every process.
        save: writes the result (EMA weights in place) into a folder; called in the main process alone.
        learning_rate_scale: maps a parameter name to a factor on the learning rate.
        pictures: returns validation pictures with the EMA weights in place, None for a stage without any.
        frozen: modules that the objective uses but does not hold; they are moved to the run's device.
    """

    objective: nn.Module
    batches: Callable[[int], Iterable[Batch]]
    validate: Callable[[], dict[str, float]]
    save: Callable[[Path], None]
    learning_rate_scale: Callable[[str], float] = field(default=lambda name: 1.0)
    pictures: Callable[[], Pictures] | None = None
    frozen: tuple[nn.Module, ...] = ()


def seeded_batches(
    dataset: Dataset[dict[str, Tensor]], draw: Draw, recipe: Recipe
) -> Callable[[int], Iterable[Batch]]:
    """Return what `TrainingStage.batches` wants: items of `dataset` drawn as `draw` says, from the run's seed."""

    def batches(start: int) -> Iterable[Batch]:
        optim, run, state = recipe.optim, recipe.run, PartialState()
        micro_steps = optim.gradient_accumulation
        sampler = SeededBatches(
            draw,
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
            pin_memory=state.device.type == "cuda",
        )

    return batches


def start_processes() -> PartialState:
    """Join the processes that `accelerate launch` or torchrun started; a lone process is its own company."""
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(on_cpu, timeout=PATIENCE)


def train(recipe: Recipe, stage: TrainingStage, output: Path, *, resume: bool = False) -> dict[str, float]:
    """Run a stage to its last step and return the last validation numbers.

    Writes into `output`: recipe.json, log.jsonl (one line per logged step), validation/, checkpoints/, final/.
    A run that stopped at step k and is resumed equals an unbroken one: on one CPU process bit by bit.

    Raises:
        TrainingStoppedError: SIGTERM or SIGINT came; a checkpoint was saved.
        FlipnetError: a loss became non-finite (its batch is saved), or an option needs what is not installed.
    """
    optim, run = recipe.optim, recipe.run
    start_processes()
    accelerator = _accelerator(recipe, output)
    set_seed(run.seed, device_specific=True)

    # One optimiser over everything that asks for gradients, its learning rate a function of the step.
    for module in (stage.objective, *stage.frozen):
        module.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_speed_and_memory(stage.objective, run)
    optimizer = make_optimizer(stage.objective, stage.learning_rate_scale, optim, accelerator.device)
    trained = trained_parameters(optimizer)
    save_trained_alone(accelerator)
    objective, optimizer = accelerator.prepare(stage.objective, optimizer)
    if accelerator.is_fsdp2:
        # Sharding put new parameters in the place of the old ones.
        trained = trained_parameters(optimizer)
    ema = EmaWeights(trained, optim.ema_decay)
    counter = StepCounter()
    accelerator.register_for_checkpointing(ema, counter)
    if resume:
        load_latest_checkpoint(accelerator, output)

    def checkpoint() -> Path:
        votes.settle()
        return save_checkpoint(accelerator, output, counter.step, run.checkpoints_total_limit)

    def save_result(name: str) -> None:
        with _averaged(ema, objective, accelerator):
            if accelerator.is_main_process:
                stage.save(output / name)
        accelerator.wait_for_everyone()

    numbers: dict[str, float] = {}
    last_save = last_log = time.monotonic()
    samples_since_log = 0
    votes = StepVotes(accelerator, output)
    with StopSignals() as signals, RunLog(accelerator, recipe, output, counter.step) as log:
        for batch in stage.batches(counter.step):
            # Forward, backward, and an optimiser step when enough has been accumulated.
            set_learning_rate(optimizer, counter.step, optim)
            with accelerator.accumulate(objective):
                batch = _to_device(batch, accelerator.device)
                losses = objective({**batch, "step": counter.step})
                votes.note(batch, losses)
                accelerator.backward(losses["total"])
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(objective.parameters(), optim.gradient_clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            samples_since_log += optim.batch_size * accelerator.num_processes
            if not accelerator.sync_gradients:
                continue
            ema.step()
            counter.step += 1
            last = counter.step == optim.steps
            agreed = votes.cast(
                counter.step,
                stop=signals.received is not None,
                checkpoint=time.monotonic() - last_save > run.checkpoint_minutes * 60,
            )

            # Report losses and images per second.
            if counter.step % run.log_every == 0 or last:
                votes.settle()
                means = _means_over_processes(accelerator, losses)
                now = time.monotonic()
                log.losses(counter.step, {**means, "images_per_second": samples_since_log / (now - last_log)})
                last_log, samples_since_log = now, 0

            # Validate with the EMA weights in place; save what a stopped run needs to go on.
            if counter.step % run.validate_every == 0 or last:
                votes.settle()
                with _averaged(ema, objective, accelerator):
                    numbers = stage.validate()
                    log.validation(counter.step, numbers, stage.pictures() if stage.pictures else None)
                last_log = time.monotonic()
            if agreed.stop and not last:
                folder = checkpoint()
                raise TrainingStoppedError(
                    f"stopped by a signal after step {counter.step}, saved {folder}; go on with --resume.",
                    signals.received or signal.SIGTERM,
                )
            if agreed.checkpoint and not last:
                checkpoint()
                save_result("latest")
                last_save = time.monotonic()
    checkpoint()
    save_result("final")
    accelerator.end_training()
    return numbers


def _accelerator(recipe: Recipe, output: Path) -> Accelerator:
    """Start the processes' common ground: run folder, precision, tracker."""
    optim, run = recipe.optim, recipe.run
    tracker = None if run.tracker == "none" else run.tracker
    require_tracker(tracker)
    if run.precision == "fp16" and PartialState().device.type == "cpu":
        raise FlipnetError("run.precision: fp16 needs a GPU, this machine has none: use bf16 or no.")
    accelerator = Accelerator(
        mixed_precision=run.precision,
        gradient_accumulation_steps=optim.gradient_accumulation,
        log_with=tracker,
        project_config=ProjectConfiguration(str(output), automatic_checkpoint_naming=False),
    )
    refuse_unsupported_sharding(accelerator)
    _tell_deepspeed(accelerator, optim)
    if accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()
    if tracker:
        names = {"wandb": {"name": output.name}, "mlflow": {"run_name": output.name}}
        accelerator.init_trackers("tracker", {"recipe": recipe.model_dump_json()}, names)
    return accelerator


def _tell_deepspeed(accelerator: Accelerator, optim: OptimConfig) -> None:
    """DeepSpeed clips gradients itself, and cannot see the batch size, as no loader is prepared."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        settings = accelerator.state.deepspeed_plugin.deepspeed_config
        settings["train_micro_batch_size_per_gpu"] = optim.batch_size
        settings["gradient_accumulation_steps"] = optim.gradient_accumulation
        settings["gradient_clipping"] = optim.gradient_clip


def set_speed_and_memory(objective: nn.Module, run: RunConfig) -> None:
    """Switch on gradient checkpointing and torch.compile in every diffusers model of the objective."""
    models = [module for module in objective.modules() if isinstance(module, ModelMixin)]
    if run.gradient_checkpointing:
        able = [model for model in models if model._supports_gradient_checkpointing]
        if not able:
            raise FlipnetError("run.gradient_checkpointing: no model of this stage supports it.")
        for model in able:
            model.enable_gradient_checkpointing()
    if run.compile:
        # In place, so that names of parameters and checkpoints stay what they are.
        for model in models:
            model.compile()


def _to_device(batch: Batch, device: torch.device) -> Batch:
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


@contextmanager
def _averaged(ema: EmaWeights, objective: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """While open, whole EMA weights are in place for inference, and no random number is taken from training."""
    device = accelerator.device
    objective.eval()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), ema.in_place(), whole_weights(objective), torch.no_grad():
            yield
    finally:
        objective.train()


def _means_over_processes(accelerator: Accelerator, losses: dict[str, Tensor]) -> dict[str, float]:
    """Return every loss averaged over the processes in which it is a number, NaN where it is in none."""
    values = torch.stack([value.detach().float() for value in losses.values()])
    present = ~values.isnan()
    sums = torch.stack([values.nan_to_num(), present.float()])
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums, reduction="sum")
    return dict(zip(losses, (sums[0] / sums[1]).tolist(), strict=True))
