"""How a run optimises and behaves, whatever it trains."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flipnet.config.table import Fraction, NonNegative, Positive, Table


class OptimConfig(Table):
    """AdamW with linear warm-up, cosine decay to zero, gradient clipping by norm and EMA of the weights.

    Attributes:
        steps: optimiser steps of the whole run.
        batch_size: samples per process and backward pass; an optimiser step sees batch_size *
            gradient_accumulation * processes of them.
        learning_rate: after the warm-up, whatever the number of processes.
        optimizer: "adamw8bit" keeps its state in 8 bits, needs bitsandbytes and a GPU.
    """

    steps: Positive
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: NonNegative = 0.01
    beta2: Fraction = 0.99
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    gradient_accumulation: Positive = 1
    ema_decay: Fraction = 0.999
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"


class RunConfig(Table):
    """How the run behaves: seed, precision, intervals.

    Attributes:
        precision: "bf16" is autocast; "no" is float32.
        checkpoint_minutes: minutes between resumable checkpoints.
        validate_every, log_every: in optimiser steps.
        checkpoints_total_limit: the newest so many checkpoints are kept.
        workers: data loading processes per process; 0 loads in the process itself.
        tracker: where curves and validation pictures go beside log.jsonl.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        compile: run torch.compile on the networks.
    """

    seed: int = 0
    precision: Literal["no", "bf16", "fp16"] = "bf16"
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    checkpoints_total_limit: Positive = 2
    validate_every: Positive = 500
    log_every: Positive = 10
    workers: Annotated[int, Field(ge=0)] = 0
    tracker: Literal["tensorboard", "wandb", "mlflow", "none"] = "tensorboard"
    gradient_checkpointing: bool = False
    compile: bool = False
