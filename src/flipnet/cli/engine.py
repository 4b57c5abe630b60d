"""What drives a command's work: this process, or Ray on many machines."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flipnet.distributed import Cluster


class EngineChoice(StrEnum):
    """What drives the work."""

    LOCAL = "local"
    RAY = "ray"


Engine = Annotated[
    EngineChoice,
    typer.Option(
        help="local is this process; ray is many, on many machines; then also tar shards and parquet."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(show_default="a cluster of this machine alone", help="Ray cluster: auto or HOST:PORT."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, show_default="one per GPU, or per 4 cores", help="Worker processes of --engine ray."),
]


def chosen_cluster(
    engine: EngineChoice, address: str | None, workers: int | None, device: str
) -> Cluster | None:
    """Where to work; None is this process.

    Raises:
        typer.BadParameter: for Ray's options without Ray.
    """
    if engine is EngineChoice.LOCAL:
        if address is not None or workers is not None:
            raise typer.BadParameter("--address and --workers need --engine ray")
        return None
    from flipnet.distributed import Cluster

    return Cluster(address, workers, gpu=device != "cpu")
