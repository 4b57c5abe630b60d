"""`flipnet degrade`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flipnet.cli.engine import Address, Engine, EngineChoice, Workers, chosen_cluster
from flipnet.cli.exit_codes import fail_unless
from flipnet.cli.options import Device, Model, Phi, Seed, Steps, existing_outputs


def degrade(
    inputs: Annotated[list[Path], typer.Argument(help="Aligned clean faces, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder.")],
    variants: Annotated[int, typer.Option(min=1, help="Different results per face.")] = 1,
    method: Annotated[
        str,
        typer.Option(
            help="flipnet (the network), or a naive recipe: real-esrgan, gfpgan, codeformer, difface, ..."
        ),
    ] = "flipnet",
    seed: Seed = 0,
    phi: Phi = 1.0,
    steps: Steps = None,
    model: Model = "compact",
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Results made at once.")] = 1,
    shards: Annotated[
        int | None,
        typer.Option(min=1, show_default="PNG files", help="Write tar shards of N (clean, bad) pairs each."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Put identity distance and landmark shift in the report.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that exist already.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out results that exist already.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write seeds and what was done to this JSON file.")
    ] = None,
    engine: Engine = EngineChoice.LOCAL,
    address: Address = None,
    workers: Workers = None,
) -> None:
    """Make realistic bad versions of clean, aligned faces: NAME_00.png, NAME_01.png, ...

    How bad a result is varies with its seed, which follows from --seed and the face's name. The naive recipes
    need no model and ignore --phi, --steps, --model and --device.
    """
    existing = existing_outputs(overwrite, skip_existing)
    if overwrite and shards is not None:
        raise typer.BadParameter("shards are only added to, delete them or give another folder")
    if measure and report is None:
        raise typer.BadParameter("its numbers go to the report, give --report", param_hint="'--measure'")

    from flipnet.commands.degrade import DegradeSettings, degrade_inputs

    settings = DegradeSettings(
        output=output,
        variants=variants,
        method=method,
        existing=existing,
        seed=seed,
        phi=phi,
        steps=steps,
        model=model,
        device=device,
        batch_size=batch_size,
        shards=shards,
        measure=measure,
        report=report,
    )
    cluster = chosen_cluster(engine, address, workers, device)
    on_cluster = None
    if cluster is not None:
        from flipnet.commands.ray_engine import degrade_on_cluster

        on_cluster = partial(degrade_on_cluster, cluster)
    fail_unless(degrade_inputs(inputs, settings, on_cluster))
