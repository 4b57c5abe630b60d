"""The real app on a real port, with the tiny two-mode model, and pictures to send to it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from flipnet.web.engine import Engine
from flipnet.web.files import Workspace
from flipnet.web.limits import Limits
from two_modes import two_mode_pipeline


def two_faces() -> np.ndarray:
    """Two portraits of NASA's Eileen Collins on gray: face 0, the larger, on the right; face 1 on the left."""
    head = skimage.data.astronaut()[:256, 100:356]
    pixels = np.full((300, 580, 3), 120, np.uint8)
    pixels[20:240, 10:230] = np.asarray(Image.fromarray(head).resize((220, 220)))
    pixels[10:290, 280:560] = np.asarray(Image.fromarray(head).resize((280, 280)))
    return pixels


RIGHT, LEFT = np.s_[:, 260:], np.s_[:, :260]


def save(pixels: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def tiny_engine(limits: Limits | None = None) -> Engine:
    return Engine(two_mode_pipeline(), "tiny", Workspace(limits or Limits()))


@contextmanager
def serving(engine: Engine) -> Iterator[str]:
    """Serve the app on a free port of 127.0.0.1; yields its address."""
    pytest.importorskip("gradio", reason="the extra 'web' is not installed")
    from flipnet.web.app import Server

    server, listener = Server(engine), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run_on, args=(listener,), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server stopped while starting"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server does not stop"
        engine.workspace.close()
