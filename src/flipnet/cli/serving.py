"""`flipnet serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from flipnet.cli.options import Device, Model


def serve(
    host: Annotated[
        str, typer.Option(help="Address to serve on; 0.0.0.0 lets others on the network in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7860,
    model: Model = "compact",
    device: Device = "auto",
    max_queue: Annotated[int, typer.Option(min=1, help="Jobs that may wait; more are refused.")] = 16,
    max_upload_mb: Annotated[float, typer.Option(min=0.001, help="Size of one uploaded file in MB.")] = 50,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Size of one photo in megapixels.")] = 60,
    time_limit_s: Annotated[float, typer.Option(min=1, help="Seconds until a job is stopped.")] = 600,
) -> None:
    """Serve the web app: restore photos in the browser or from programs."""
    from flipnet.commands.serve import ServeSettings
    from flipnet.commands.serve import serve as serve_app
    from flipnet.web.limits import Limits

    limits = Limits(
        queue=max_queue, upload_mb=max_upload_mb, megapixels=max_megapixels, job_seconds=time_limit_s
    )
    serve_app(ServeSettings(host, port, model, device, limits))
