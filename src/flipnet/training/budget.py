"""What a recipe costs before it is run: parameters, floating point operations and memory, counted on shapes alone.

Networks are built on torch's meta device from configurations, so nothing is downloaded, no weight is read, and any
machine can count a recipe for eight GPUs. One multiplication with one addition is two operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from flipnet.config import Recipe
from flipnet.training.modes import ModeObjective
from flipnet.training.shapes import COUNTED_STAGES, Shapes, build_shapes, random_batch
from flipnet.types import FlipnetError, assign_roles

FULL, HALF = 4, 2
# Missing from torch's registry.
CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
OPTIMIZER_BYTES = {"adamw": 8, "adamw8bit": 2}


@dataclass(frozen=True)
class Part:
    """A part of the network. Attributes: trainable, frozen: its numbers of parameters."""

    name: str
    trainable: int
    frozen: int


@dataclass(frozen=True)
class Budget:
    """What a training step costs per sample, and what a process must hold.

    Attributes:
        parts: parameters by part.
        flops: operations per sample by piece of the step, in order; they sum up to the step's.
        activation_bytes: what one sample's forward pass keeps for the backward pass, in float32.
        state_bytes: weights, gradients, optimiser and EMA, in float32, whatever the batch.
        notes: what was assumed.
    """

    parts: tuple[Part, ...]
    flops: dict[str, int]
    activation_bytes: int
    state_bytes: int
    notes: tuple[str, ...]

    @property
    def step_flops(self) -> int:
        """Operations of a training step per sample."""
        return sum(self.flops.values())

    def memory_bytes(self, batch_size: int, *, autocast: bool) -> int:
        """Estimated peak per process.

        Under autocast activations count half (matrix products and convolutions keep bfloat16, which is most of
        what is kept), weights stay float32.
        """
        width = HALF if autocast else FULL
        return self.state_bytes + batch_size * self.activation_bytes * width // FULL


def count_budget(recipe: Recipe) -> Budget:
    """Count a recipe's step on the meta device; FlipnetError for a stage that trains on what no shape tells."""
    if recipe.stage not in COUNTED_STAGES:
        raise FlipnetError(
            f"--dry-run: stage '{recipe.stage}' is not counted, only {', '.join(COUNTED_STAGES)} are."
        )
    shapes = build_shapes(recipe, torch.device("meta"))
    parts = _parts(shapes)
    flops, activations = _count_step(shapes, random_batch(recipe, shapes, 1, torch.device("meta")))
    trainable = sum(part.trainable for part in parts)
    everything = trainable + sum(part.frozen for part in parts)
    state = FULL * everything + trainable * (FULL + OPTIMIZER_BYTES[recipe.optim.optimizer] + FULL)
    return Budget(tuple(parts), flops, activations, state, shapes.notes)


def _parts(shapes: Shapes) -> list[Part]:
    counts: dict[str, list[int]] = {}
    modules = [("", shapes.objective), *((f"{name}.", module) for name, module in shapes.frozen.items())]
    for prefix, module in modules:
        for name, parameter in module.named_parameters():
            count = counts.setdefault(_part_name(prefix + name), [0, 0])
            count[0 if parameter.requires_grad else 1] += parameter.numel()
    return [Part(name, *count) for name, count in counts.items()]


def _part_name(parameter: str) -> str:
    if "lora_" in parameter:
        return "LoRA"
    if ".processor." in parameter:
        return "hubs"
    for part, name in (("adapters.", "tau"), ("unet.", "UNet"), ("face_encoder.", "face encoder")):
        if parameter.removeprefix("network.").startswith(part):
            return name
    return parameter.split(".")[0]


def _count_step(shapes: Shapes, batch: dict[str, Tensor]) -> tuple[dict[str, int], int]:
    """Return the operations by piece, and the bytes that the forward pass keeps."""
    objective = shapes.objective
    with _flash_attention():
        pieces = _count_pieces(objective, batch) if isinstance(objective, ModeObjective) else {}
        with OperationCounter() as counter, _kept_bytes(objective) as kept:
            total = objective(batch)["total"]
            forward = counter.total
            total.backward()
    pieces["image terms" if pieces else "forward"] = forward - sum(pieces.values())
    pieces["backward"] = counter.total - forward
    return {name: count for name, count in pieces.items() if count}, sum(kept.values())


def _count_pieces(objective: ModeObjective, batch: dict[str, Tensor]) -> dict[str, int]:
    """Operations of a mode's forward pass but for its image terms."""
    network = objective.network
    with torch.no_grad(), OperationCounter() as encoding:
        if "hq_latents" not in batch:
            batch = batch | objective._encoded(batch)
    roles = assign_roles(batch["hq_latents"], batch["lq_latents"], objective.mode)
    with torch.no_grad(), OperationCounter() as conditioning:
        code = objective.normalised_code(batch)
        condition = network.condition(roles.condition, batch.get("embedding"), code=code)
    timesteps = torch.zeros(len(roles.target), dtype=torch.long, device=roles.target.device)
    with torch.no_grad(), OperationCounter() as denoising:
        network(roles.target, timesteps, condition)
    return {
        "encoding": encoding.total,
        "condition pass": conditioning.total,
        "denoising": denoising.total,
    }


class OperationCounter(TorchDispatchMode):
    """Adds up the operations of all matrix products, convolutions and attentions while open.

    torch's own FlopCounterMode also attributes them to modules, which fails where gradients are switched off
    within a forward pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket is CPU_ATTENTION:
            self.total += sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
        elif func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


@contextmanager
def _flash_attention() -> Iterator[None]:
    """While open, attention is what it is on a GPU, where the matrix of all similarities is never kept.

    The function itself is exchanged, as a TorchFunctionMode is not in force while a backward pass computes
    checkpointed activations again.
    """

    def flash(query: Tensor, key: Tensor, value: Tensor, *settings: Any, **more: Any) -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]

    ordinary = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = flash
    try:
        yield
    finally:
        F.scaled_dot_product_attention = ordinary


@contextmanager
def _kept_bytes(objective: nn.Module) -> Iterator[dict[int, int]]:
    """Collect the size of every storage that is kept for the backward pass and is no parameter's."""
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage()._cdata for parameter in objective.parameters()}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
            alive.append(storage)  # an address may be used again once its storage is gone
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
