"""What stands before gradio: only the routes the app needs, bounded requests, no network, no foreign pages.

Gradio serves more than this app uses (a proxy, fetching of addresses, calls past the queue, histories kept on
a hub). All of it is answered with 404 here, so that a new route in a later gradio is closed until it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flipnet.web.files import Workspace

API = "/gradio_api"
UPLOAD = f"{API}/upload"

ROUTES = frozenset({"/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json"}) | {
    f"{API}/{name}"
    for name in (
        *("app_id", "cancel", "info", "login_check", "openapi.json", "queue/data", "queue/join", "reset"),
        *("startup-events", "upload", "upload_progress", "user"),
    )
}
FOLDERS = (
    *("/assets/", "/static/", "/svelte/"),
    *(f"{API}/{name}" for name in ("call/", "file=", "heartbeat/", "run/")),
)

MAX_JSON_BYTES = 1_000_000
"""Largest request that is no upload: a batch of 50 photos is named in about 30 kB."""

MAX_BOUNDARY = 70
"""Characters between the parts of an upload; RFC 2046, 5.1.1."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

HEADERS = {
    # Everything from this server. Gradio's page has inline scripts and styles, and shows pictures as blobs.
    "content-security-policy": (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """A request that is not passed on: HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Gate:
    """ASGI middleware that checks requests and adds `HEADERS` to every answer.

    Args:
        app: the app behind it.
        workspace: where uploads go, asked for room.
        loopback_only: answer only to this machine's own names, so that no web page can make its visitor's
            browser read photos through a host name that it points at 127.0.0.1.
    """

    def __init__(self, app: ASGIApp, workspace: Workspace, *, loopback_only: bool) -> None:
        self._app, self._workspace, self._loopback_only = app, workspace, loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a refusal."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            receive = await self._checked(scope, receive)
        except Refusal as refusal:
            answer = PlainTextResponse(refusal.sentence, refusal.status)
            await answer(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        headers, path = Headers(scope=scope), scope["path"]
        self._check_address(headers)
        _check_route(path)
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return receive
        length = _length(headers)
        if path == UPLOAD:
            _check_multipart(headers)
            self._check_upload(length)
            return receive
        if length > MAX_JSON_BYTES:
            raise Refusal(413, f"The request is larger than {MAX_JSON_BYTES} bytes.")
        body = await _read(receive)
        _check_paths(body)
        return _replay(body, receive)

    def _check_address(self, headers: Headers) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name = urlsplit(f"//{host}").hostname
            foreign = origin is not None and urlsplit(origin).netloc != host
        except ValueError as error:
            raise Refusal(400, "The request's host name is not valid.") from error
        if self._loopback_only and name not in LOOPBACK:
            raise Refusal(403, "This server answers to this machine's own names only (localhost, 127.0.0.1).")
        if foreign:
            raise Refusal(403, "The request comes from another site's page.")

    def _check_upload(self, length: int) -> None:
        limits = self._workspace.limits
        if length > limits.upload_bytes * limits.photos:
            raise Refusal(
                413, f"More than {limits.photos} files of {limits.upload_mb:g} MB were sent at once."
            )
        if not self._workspace.has_room(length):
            raise Refusal(507, "The server has no room for more uploads now; try again in a while.")


def _check_route(path: str) -> None:
    if path not in ROUTES and not path.startswith(FOLDERS):
        raise Refusal(404, "There is no such page.")
    if path.startswith(f"{API}/file=") and "://" in path:
        raise Refusal(404, "Files from other servers are not fetched.")


def _check_multipart(headers: Headers) -> None:
    message = EmailMessage()
    message["content-type"] = headers.get("content-type", "")
    boundary = message.get_boundary("")
    if message.get_content_type() != "multipart/form-data" or not 0 < len(boundary) <= MAX_BOUNDARY:
        raise Refusal(400, "Uploads must be multipart/form-data with a boundary of at most 70 characters.")


def _length(headers: Headers) -> int:
    text = headers.get("content-length", "")
    if not text.isdecimal():
        raise Refusal(411, "The request does not say how long it is.")
    return int(text)


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: Iterator[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replayed() -> Message:
        return next(messages, None) or await receive()

    return replayed


def _check_paths(body: bytes) -> None:
    """Refuse files given by address: gradio would fetch them."""
    try:
        document = json.loads(body or b"null")
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "The request is not valid JSON.") from error
    for path in _paths(document):
        if "://" in path:
            raise Refusal(400, "Files from other servers are not fetched; upload the file.")


def _paths(document: Any) -> Iterator[str]:
    """Every string called "path" in a JSON document of any depth."""
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if isinstance(item.get("path"), str):
                yield item["path"]
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
