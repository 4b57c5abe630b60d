"""What the gate lets through, around a small app that says what reached it."""

from __future__ import annotations

import json

import httpx
import pytest

from flipnet.web.files import Workspace
from flipnet.web.limits import Limits

gate = pytest.importorskip("flipnet.web.gate", reason="the extra 'web' is not installed")

FORM = {"content-type": "multipart/form-data; boundary=x"}


async def echo(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"reached:" + body})


@pytest.fixture
def workspace():
    workspace = Workspace(Limits(upload_mb=0.001, photos=3, folder_mb=0.1))
    yield workspace
    workspace.close()


@pytest.fixture
def request_to(workspace):
    def send(method: str, path: str, *, host: str = "127.0.0.1:7860", loopback_only: bool = True, **kwargs):
        import asyncio

        async def go():
            guarded = gate.Gate(echo, workspace, loopback_only=loopback_only)
            transport = httpx.ASGITransport(guarded)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
                return await client.request(method, path, **kwargs)

        return asyncio.run(go())

    return send


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/theme.css", "/assets/index.js", "/gradio_api/info", "/gradio_api/file=/tmp/x.png"],
)
def test_what_the_page_needs_is_let_through_with_headers(request_to, path):
    answer = request_to("GET", path)
    assert (answer.status_code, answer.text) == (200, "reached:")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=https://example.org/",
        "/gradio_api/file=https://example.org/a.png",
        "/gradio_api/file=http://169.254.169.254/latest",
        "/gradio_api/api/restore",
        "/gradio_api/vibe-edit",
        "/gradio_api/process_recording",
        "/gradio_api/run-history/connect",
        "/gradio_api/deep_link",
        "/gradio_api/custom_component/a/client/b/c",
        "/gradio_api/stream/a/b/c/playlist.m3u8",
        "/gradio_api/component_server",
        "/monitoring",
        "/monitoring/summary",
        "/login",
        "/docs",
        "/openapi.json",
        "/nothing",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_the_page_does_not_need_is_not_there(request_to, method, path):
    answer = request_to(method, path)
    assert answer.status_code == 404
    assert "reached" not in answer.text


def test_json_goes_through_unchanged(request_to):
    body = json.dumps({"data": [{"path": "/tmp/x/photo.png"}, "é", 1.5]}).encode()
    answer = request_to("POST", "/gradio_api/queue/join", content=body)
    assert answer.content == b"reached:" + body


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"data": [{"path": "https://example.org/a.png"}]}', 400),
        (b'{"data": [[{"deep": {"path": "file:///etc/passwd"}}]]}', 400),
        (b'{"data": [', 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b" " * (gate.MAX_JSON_BYTES + 1), 413),
    ],
)
def test_addresses_bad_json_and_large_requests_are_refused(request_to, body, status):
    answer = request_to("POST", "/gradio_api/queue/join", content=body)
    assert answer.status_code == status
    assert answer.text.endswith(".")
    assert "reached" not in answer.text


def test_a_request_of_unknown_length_is_refused(request_to):
    async def parts():
        yield b"{}"

    assert request_to("POST", "/gradio_api/queue/join", content=parts()).status_code == 411


def test_uploads_are_bounded_by_their_number_and_by_the_room_left(request_to, workspace):
    assert request_to("POST", "/gradio_api/upload", content=bytes(3000), headers=FORM).status_code == 200
    answer = request_to("POST", "/gradio_api/upload", content=bytes(3001), headers=FORM)
    assert (answer.status_code, answer.text) == (413, "More than 3 files of 0.001 MB were sent at once.")
    (workspace.root / "filler").write_bytes(bytes(99_000))
    answer = request_to("POST", "/gradio_api/upload", content=bytes(3000), headers=FORM)
    assert answer.status_code == 507
    assert "no room" in answer.text


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "multipart/form-data",
        f"multipart/form-data; boundary={'x' * 71}",
        "multipart/form-data;;=;",
    ],
)
def test_uploads_that_are_no_form_are_refused(request_to, content_type):
    headers = {"content-type": content_type}
    answer = request_to("POST", "/gradio_api/upload", content=b"x", headers=headers)
    assert answer.status_code == 400
    assert "multipart/form-data" in answer.text


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "[::1]:7860", "LOCALHOST"])
def test_this_machines_names_are_answered(request_to, host):
    assert request_to("GET", "/", host=host).status_code == 200


@pytest.mark.parametrize("host", ["evil.example:7860", "127.0.0.1.evil.example", "192.168.1.7"])
def test_another_host_name_is_refused_unless_the_server_is_open(request_to, host):
    assert request_to("GET", "/", host=host).status_code == 403
    assert request_to("GET", "/", host=host, loopback_only=False).status_code == 200


def test_a_host_that_is_no_name_is_refused(request_to):
    assert request_to("GET", "/", headers={"host": "[::1"}).status_code == 400


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:7860", 200),
        ("http://127.0.0.1:8000", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ],
)
def test_pages_of_other_sites_cannot_send(request_to, origin, status):
    answer = request_to("POST", "/gradio_api/upload", content=b"x", headers={"origin": origin, **FORM})
    assert answer.status_code == status
