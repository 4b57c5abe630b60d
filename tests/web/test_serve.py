"""`flipnet serve` as a process: what it says, and that nothing of it stays."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from typer.testing import CliRunner

from flipnet.cli import app, main

pytest.importorskip("gradio", reason="the extra 'web' is not installed")


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_on_loopback_and_deletes_its_folder_when_stopped(tiny_checkpoint, tmp_path, sign):
    command = [sys.executable, "-m", "flipnet", "serve", "--port", "0", "--model", str(tiny_checkpoint)]
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+", line)
        # A page that stays open must not hold the server up.
        with httpx.stream("GET", f"{address}/gradio_api/heartbeat/somebody", timeout=60) as heartbeat:
            assert heartbeat.status_code == 200
            assert [path.name[:12] for path in tmp_path.iterdir() if path.is_dir()] != []
            server.send_signal(sign)
            server.wait(60)
        assert "Traceback" not in server.stderr.read()  # type: ignore[union-attr]
    assert list(tmp_path.glob("flipnet-web-*")) == []


def test_a_port_in_use_is_said_so_before_the_model_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match="2"):
            main(["serve", "--port", str(port), "--model", "no such model"])
    assert re.search(rf"flipnet: --host 127\.0\.0\.1 --port {port}: cannot be used", capsys.readouterr().err)


def test_limits_out_of_range_are_refused():
    assert CliRunner().invoke(app, ["serve", "--max-queue", "0"]).exit_code == 2
