"""What a stopped run needs to go on exactly: weights that are trained, optimiser, EMA, random states, the step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator, DistributedType
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from flipnet.types import FlipnetError


class StepCounter:
    """The number of finished optimiser steps, saved with the checkpoint."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        """Return what `load_state_dict` takes."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a saved step."""
        self.step = state["step"]


class EmaWeights:
    """The exponential moving average of what is trained, whole or sharded as the parameters are.

    Args:
        parameters: what is trained, in the optimiser's order.
        decay: of the average, reached by diffusers' warm-up with power 0.75 (our choice).
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self._model = EMAModel(parameters, decay=decay, use_ema_warmup=True, power=0.75)
        # In bfloat16 a slow average would stand still.
        self._model.shadow_params = [shadow.float() for shadow in self._model.shadow_params]

    def step(self) -> None:
        """Take the parameters as they are now into the average."""
        self._model.step(self.parameters)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While open, the parameters hold the average."""
        kept = [parameter.detach().clone() for parameter in self.parameters]
        self._fill(self._model.shadow_params)
        try:
            yield
        finally:
            self._fill(kept)

    def _fill(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.data.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Return diffusers' EMA state with whole tensors; every process must call it when they are sharded."""
        state = self._model.state_dict()
        return {**state, "shadow_params": [_whole(shadow) for shadow in state["shadow_params"]]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved average."""
        self._model.load_state_dict(state)
        self._model.shadow_params = [
            _like(parameter, shadow)
            for parameter, shadow in zip(self.parameters, self._model.shadow_params, strict=True)
        ]


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(parameter: Tensor, whole: Tensor) -> Tensor:
    whole = whole.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements)
    return whole


@contextmanager
def whole_weights(objective: nn.Module) -> Iterator[None]:
    """While open, every module holds whole weights, also where FSDP2 shards them; all processes must enter."""
    sharded = [module for module in objective.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()


def refuse_unsupported_sharding(accelerator: Accelerator) -> None:
    """Raise FlipnetError for the two ways of sharding whose pieces cannot be averaged one by one."""
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise FlipnetError("accelerate's config has fsdp_version 1, set fsdp_version: 2.")
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        plugin = accelerator.state.deepspeed_plugin
        if plugin is not None and plugin.zero_stage == 3:
            raise FlipnetError(
                "accelerate's config has zero_stage 3, use zero_stage 1 or 2, or FSDP with fsdp_version: 2."
            )


def save_trained_alone(accelerator: Accelerator) -> None:
    """Leave frozen weights out of checkpoints: they are the base's, and most of the size."""

    def leave_out(models: list[nn.Module], weights: list[dict[str, Tensor]], folder: str) -> None:
        for model, state in zip(models, weights, strict=False):
            plain = accelerator.unwrap_model(model)
            for name, parameter in plain.named_parameters(remove_duplicate=False):
                if not parameter.requires_grad:
                    state.pop(name, None)
                    state.pop(f"module.{name}", None)

    accelerator.register_save_state_pre_hook(leave_out)


def save_checkpoint(accelerator: Accelerator, output: Path, step: int, limit: int) -> Path:
    """Write `checkpoints/step-<step>`, under a temporary name first, and keep the newest `limit`; all call it."""
    folder = output / "checkpoints" / f"step-{step:08d}"
    partial = folder.with_name(f".{folder.name}.partial")
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        for old in sorted(folder.parent.glob("step-*"))[:-limit]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return folder


def load_latest_checkpoint(accelerator: Accelerator, output: Path) -> None:
    """Go on from the newest checkpoint of a run folder; FlipnetError when it has none."""
    found = sorted((output / "checkpoints").glob("step-*"))
    if not found:
        raise FlipnetError(f"{output}: no checkpoint to resume from")
    # Frozen weights are not in it, see `save_trained_alone`.
    accelerator.load_state(str(found[-1]), strict=False)
