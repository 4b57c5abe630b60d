"""Work over many machines: units of work on a Ray cluster, each done once, whatever dies on the way.

Ray Data hands the units to worker processes, which load their model once. A worker that dies is replaced and
its unit tried again; what it had finished is not, because a ledger beside the driver knows. Nothing of this
module says what a unit is: see `commands.ray_engine`.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from flipnet.types import FlipnetError

U = TypeVar("U")
R = TypeVar("R")

MAX_ATTEMPTS = 3
"""Workers that one unit may cost; a picture that kills its process must not stop all others."""

CPUS_PER_WORKER = 4
"""Cores for a worker without GPU, where the number of workers is left open. Our choice."""

_UNITS_PER_BLOCK = 32
_LOCAL_OBJECT_STORE_BYTES = 200 * 2**20  # what travels is names and reports, at most encoded pictures


@dataclass(frozen=True)
class Cluster:
    """Where to work.

    Attributes:
        address: of a running Ray cluster, "auto" for the one of this machine; None starts one on this machine
            alone, which ends with the run.
        workers: worker processes; None takes one per GPU, and without GPUs one per `CPUS_PER_WORKER` cores.
        gpu: whether workers want a GPU each, where the cluster has any.
    """

    address: str | None = None
    workers: int | None = None
    gpu: bool = True


def map_on_cluster(
    units: Sequence[U], load: Callable[[], Callable[[U], R]], cluster: Cluster, *, remember: bool
) -> Iterator[R | None]:
    """Yield the result of every unit, in order, as they are done; None for one that killed all its workers.

    Args:
        units: what is to be done; picklable.
        load: called once per worker process, in the driver's working folder; returns what does a unit.
            Picklable, as are the results.
        cluster: where to work.
        remember: results are small, and what a unit makes is on disk when it returns: then a unit that was
            finished is never done again. Otherwise the units that a dead worker had not handed over yet are.

    Raises:
        FlipnetError: Ray is not installed or cannot be reached; or what `load` raised, in any worker.
    """
    with connection(cluster) as ray:
        workers, cpus, gpus = _share(ray.cluster_resources(), cluster)
        ledger = _start_ledger(ray)
        per_block = max(1, min(_UNITS_PER_BLOCK, len(units) // (8 * workers)))
        rows = [{"index": index, "unit": pickle.dumps(unit)} for index, unit in enumerate(units)]
        dataset = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // per_block)).map_batches(
            _Worker,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
            num_cpus=cpus,
            num_gpus=gpus,
            fn_constructor_kwargs={
                "load": load,
                "folder": os.getcwd(),
                "ledger": ledger,
                "remember": remember,
            },
        )
        dataset.context.execution_options.preserve_order = True
        for row in dataset.iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, FlipnetError):
                raise result
            yield result


class _Worker:
    """One process of the pool: does a unit after asking the ledger, and tells it."""

    def __init__(
        self, load: Callable[[], Callable[[Any], Any]], folder: str, ledger: Any, remember: bool
    ) -> None:
        self._ledger, self._remember = ledger, remember
        self._refusal: FlipnetError | None = None
        # Raised here, a refusal would make Ray start worker after worker; as a result it ends the run.
        try:
            os.chdir(folder)
            self._work = load()
        except OSError as error:
            self._refusal = FlipnetError(
                f"{error.filename or folder}: {error.strerror} on the machine {socket.gethostname()}; "
                "all machines need the same files under the same paths"
            )
        except FlipnetError as error:
            self._refusal = error

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        (row,) = batch.to_pylist()
        return pa.table({"result": pa.array([self._result(row["index"], row["unit"])], pa.binary())})

    def _result(self, index: int, unit: bytes) -> bytes:
        import ray

        if self._refusal is not None:
            return pickle.dumps(self._refusal)
        allowed, known = ray.get(self._ledger.begin.remote(index))
        if known is not None:
            return known
        result = pickle.dumps(self._work(pickle.loads(unit)) if allowed else None)
        if self._remember:
            ray.get(self._ledger.finish.remote(index, result))
        return result


class Ledger:
    """What was begun and finished, by unit; a process of its own, so that it outlives workers."""

    def __init__(self) -> None:
        self._attempts: Counter[int] = Counter()
        self._results: dict[int, bytes] = {}

    def begin(self, index: int) -> tuple[bool, bytes | None]:
        """Return whether a unit may be tried (again), and its result where it is finished."""
        if index in self._results:
            return False, self._results[index]
        self._attempts[index] += 1
        return self._attempts[index] <= MAX_ATTEMPTS, None

    def finish(self, index: int, result: bytes) -> None:
        """Note the result of a unit."""
        self._results[index] = result


def _import_ray() -> Any:
    # Ray reads these when it is imported and started. Its core's own log tells users nothing that its exceptions
    # do not; and its workers would run at lowest priority, though they are all that was asked of the machine.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise FlipnetError(
            f'--engine ray needs Ray Data ({error}); install it with pip install "flipnet[ray]"'
        ) from error
    return ray


@contextmanager
def connection(cluster: Cluster) -> Iterator[Any]:
    """Give the `ray` module, connected to the cluster or to one started on this machine, while the block runs.

    A connection that is there already is used, whatever `cluster` says, and stays. Nothing is sent to anyone
    outside the cluster. Raises FlipnetError when Ray is not installed or cannot be reached.
    """
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if cluster.address is not None:
            ray.init(address=cluster.address, **quiet)
        else:
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, cluster.workers or 1),
                include_dashboard=False,
                object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
                **quiet,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"--address {cluster.address}: " if cluster.address else ""
        raise FlipnetError(f"{where}no Ray cluster could be had: {str(error).splitlines()[0]}") from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        yield ray
    finally:
        ray.shutdown()


def _share(resources: dict[str, float], cluster: Cluster) -> tuple[int, float, float]:
    """Return the number of workers, and the CPUs and GPUs that each of them gets."""
    cpus, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0)) if cluster.gpu else 0
    workers = cluster.workers or gpus or max(1, cpus // CPUS_PER_WORKER)
    return workers, max(1, cpus // workers), min(1.0, gpus / workers)


def _start_ledger(ray: Any) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Beside the driver: where it dies, the run is over anyway.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Ledger).remote()
