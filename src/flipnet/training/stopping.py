"""When a run ends before its last step: asked to by a signal, or because a loss is no longer a number.

Processes must decide alike at the same step, and no device should wait for its host. So every process casts a
small vote each step, the votes are summed on the device, and the sum is read one step later. Source: our choice.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor

from flipnet.types import FlipnetError

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingStoppedError(FlipnetError):
    """A run that saved a checkpoint and ended because a signal asked it to.

    Attributes:
        exit_code: 128 plus the signal's number, as a shell reports it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class StopSignals:
    """While open, SIGTERM and SIGINT are remembered; a second one acts as usual.

    Attributes:
        received: number of the first signal, None before one came.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        # Only the main thread may listen; a run started elsewhere is stopped by whoever started it.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_back()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@dataclass(frozen=True)
class Agreement:
    """What all processes decided. Attributes: stop: end the run; checkpoint: save one now."""

    stop: bool = False
    checkpoint: bool = False


@dataclass
class _Ballot:
    """One step's votes, on their way to the host, and what the step was computed from."""

    step: int
    votes: Tensor
    arrived: torch.cuda.Event | None
    finite: Tensor
    evidence: list[tuple[dict[str, Any], dict[str, Tensor]]]


class StepVotes:
    """Lets the processes agree, once per optimiser step, on stopping, saving and whether all losses are finite.

    Args:
        accelerator: of the run.
        output: run folder; a batch whose loss is not finite goes to `non_finite/` in it.
    """

    def __init__(self, accelerator: Accelerator, output: Path) -> None:
        self.accelerator, self.output = accelerator, output
        self._evidence: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
        self._pending: deque[_Ballot] = deque()
        self._agreed = Agreement()

    def note(self, batch: dict[str, Any], losses: dict[str, Tensor]) -> None:
        """Keep a batch and its named scalar losses until the step's votes were read."""
        self._evidence.append((batch, {name: value.detach() for name, value in losses.items()}))

    def cast(self, step: int, *, stop: bool, checkpoint: bool) -> Agreement:
        """Vote for the step just finished and return what was agreed on the step before.

        Raises FlipnetError when a loss of that step was not finite in any process.
        """
        device = self.accelerator.device
        finite = torch.stack([losses["total"] for _, losses in self._evidence]).isfinite().all()
        wishes = torch.tensor([float(stop), float(checkpoint)]).to(device, non_blocking=True)
        votes = torch.cat([(~finite).float().view(1), wishes])
        if self.accelerator.num_processes > 1:
            votes = self.accelerator.reduce(votes, reduction="sum")
        arrived = None
        if device.type == "cuda":
            votes = votes.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._pending.append(_Ballot(step, votes, arrived, finite, self._evidence))
        self._evidence = []
        while len(self._pending) > 1:
            self._read()
        agreed, self._agreed = self._agreed, Agreement()
        return agreed

    def settle(self) -> None:
        """Wait for the votes that were not read yet; raises as `cast` does."""
        while self._pending:
            self._read()

    def _read(self) -> None:
        ballot = self._pending.popleft()
        if ballot.arrived is not None:
            ballot.arrived.synchronize()
        bad, stop, checkpoint = (value > 0 for value in ballot.votes.tolist())
        if bad:
            self._fail(ballot)
        self._agreed = Agreement(self._agreed.stop or stop, self._agreed.checkpoint or checkpoint)

    def _fail(self, ballot: _Ballot) -> None:
        if bool(ballot.finite):
            raise FlipnetError(
                f"{self.output}: the loss became non-finite at step {ballot.step} in another process."
            )
        process = self.accelerator.process_index
        file = self.output / "non_finite" / f"step-{ballot.step:08d}-process-{process}.safetensors"
        losses = [{name: float(v) for name, v in losses.items()} for _, losses in ballot.evidence]
        _save_batches(file, ballot.step, [batch for batch, _ in ballot.evidence], losses)
        bad = next(each for each in losses if not torch.tensor(each["total"]).isfinite())
        text = ", ".join(f"{name} {value:.4g}" for name, value in bad.items())
        raise FlipnetError(
            f"{self.output}: the loss became non-finite at step {ballot.step} ({text}); its batch is in {file}."
        )


def _save_batches(
    file: Path, step: int, batches: list[dict[str, Any]], losses: list[dict[str, float]]
) -> None:
    """Write the batches of one step as `<number>.<name>` tensors, the losses in the file's metadata as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{number}.{name}": value.detach().cpu().contiguous()
        for number, batch in enumerate(batches)
        for name, value in batch.items()
        if isinstance(value, Tensor)
    }
    partial = file.with_name(f".{file.name}.partial")
    save_file(tensors, partial, {"step": str(step), "losses": json.dumps(losses)})
    os.replace(partial, file)
