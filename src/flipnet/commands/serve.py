"""`flipnet serve`: load the model, serve the page, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
from dataclasses import dataclass, field

import typer

from flipnet.types import FlipnetError
from flipnet.web.limits import Limits


@dataclass(frozen=True)
class ServeSettings:
    """What `flipnet serve` was asked to do; each field is the option of the same name.

    Attributes:
        limits: bounds on what visitors may ask for.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    model: str = "compact"
    device: str = "auto"
    limits: Limits = field(default_factory=Limits)


def serve(settings: ServeSettings) -> None:
    """Serve until interrupted; afterwards all uploads and results are deleted.

    Raises:
        FlipnetError: gradio is not installed, the address cannot be used, or the model cannot be loaded.
    """
    # Before gradio is imported, which reads them then. No usage figures, nothing kept per finished job.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_ANALYTICS_MAX_EVENTS": "1"}
    try:
        from flipnet.web.app import Server
    except ModuleNotFoundError as error:
        raise FlipnetError(f'serve needs {error.name}: pip install "flipnet[web]"') from error
    from flipnet.web.engine import Engine
    from flipnet.web.files import Sweeper, Workspace
    from flipnet.web.gate import LOOPBACK

    listener = _listen(settings.host, settings.port)
    workspace = Workspace(settings.limits)
    sweeper = Sweeper(workspace)
    # Uvicorn shuts down and then raises the signal again, which would end the process before `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        engine = Engine.load(settings.model, settings.device, workspace)
        server = Server(engine, loopback_only=settings.host in LOOPBACK)
        sweeper.start()
        typer.echo(f"flipnet serves {settings.model} on http://{settings.host}:{listener.getsockname()[1]}")
        server.run_on(listener)
    finally:
        listener.close()
        sweeper.stop()
        workspace.close()


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before the model is loaded, so that a port in use costs no waiting."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise FlipnetError(f"--host {host} --port {port}: cannot be used ({error})") from error
