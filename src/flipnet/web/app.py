"""The ASGI app: gradio's page, without its telemetry, histories and foreign fonts, behind the gate."""

from __future__ import annotations

import socket

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.routes import App
from starlette.routing import Mount

from flipnet.web.engine import Engine
from flipnet.web.gate import Gate
from flipnet.web.page import build_page

SESSIONS = 200
"""Visitors whose page state gradio keeps; nothing of a visitor's photos is in it. Our choice: about 0.3 MB each."""

SHUTDOWN_SECONDS = 5
"""How long requests may still take once the server is to stop."""

CSS = """
.gradio-container { max-width: min(1200px, 100vw) !important; margin: 0 auto; }
.gradio-container > .main { min-width: 0; max-width: 100%; }
.flat .grid-wrap { height: auto !important; min-height: 0 !important; }
#notice { border-left: 4px solid var(--primary-500); padding: 0.25rem 0.75rem; }
"""


def theme() -> gr.themes.Base:
    """Gradio's default look with the system's own fonts, so that none is fetched."""
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def build_app(engine: Engine) -> FastAPI:
    """Return gradio's ASGI app, which belongs behind a `Gate`; its last route is the mounted `gradio.routes.App`.

    Args:
        engine: the loaded model; its workspace must exist before, as gradio reads its upload folder from the
            environment.
    """
    limits = engine.workspace.limits
    page = build_page(engine)
    page.queue(max_size=limits.queue, api_open=False, default_concurrency_limit=1)
    page.state_session_capacity = SESSIONS
    return gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="",
        allowed_paths=[],
        show_error=False,
        max_file_size=limits.upload_bytes,
        enable_monitoring=False,
        run_history=False,
        footer_links=["api"],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=CSS,
    )


class Server(uvicorn.Server):
    """The app on a listening socket; `run_on` blocks until `should_exit` is set or a signal comes.

    Args:
        engine: see `build_app`.
        loopback_only: see `Gate`.
    """

    def __init__(self, engine: Engine, *, loopback_only: bool = True) -> None:
        self._engine, self._app = engine, build_app(engine)
        gate = Gate(self._app, engine.workspace, loopback_only=loopback_only)
        super().__init__(
            uvicorn.Config(gate, log_level="warning", timeout_graceful_shutdown=SHUTDOWN_SECONDS)
        )

    def run_on(self, listener: socket.socket) -> None:
        """Serve on a socket."""
        self.run(sockets=[listener])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop jobs and end the stream that every open page holds, which uvicorn would wait for."""
        self._engine.jobs.cancel_all()
        mount = self._app.routes[-1]
        assert isinstance(mount, Mount)
        assert isinstance(mount.app, App)
        mount.app.stop_event.set()
        await super().shutdown(sockets)
