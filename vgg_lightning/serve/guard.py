"""Guards the page: which requests are accepted, how large they may be, and what a response contains.

A page from elsewhere that is open in the same browser can send requests to this machine. Browsers say where a request
comes from (Origin, Sec-Fetch-Site); what comes from another page is refused, other ports of this machine included.
Programs say nothing of the kind, and are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from vgg_lightning.data.images.decode import MOST_BYTES

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

UPLOAD = "/gradio_api/upload"
MOST_UPLOADED = MOST_BYTES + 100_000  # with what stands around the file in a form
PATIENCE = 5.0  # seconds
MOST_SENT = 4_000_000  # bytes of any other request; the canvas of 336 x 336 pixels takes at most 600,000
HEADERS = {  # the browser keeps to this origin, whatever the page asks for
    b"content-security-policy": b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


class Guard:
    """Refuses requests of other pages and requests that are too large, and puts `HEADERS` on every answer.

    Args:
        app: the application (ASGI).
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # the page opens no web socket
            return await send({"type": "websocket.close", "code": 1008})
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if _is_from_elsewhere(scope["method"], headers):
            await _drain(receive, headers)
            return await _refuse(send, 403, "this comes from another page: open the address of this one in the browser")
        await _Exchange(self.app, scope, receive, send).run(headers)
        return None


class _Exchange:
    """One request and its answer, the request cut off once it is too long."""

    def __init__(self, app: App, scope: Message, receive: Receive, send: Send) -> None:
        self.app, self.scope, self.receive, self.send = app, scope, receive, send
        self.left = MOST_UPLOADED if scope["path"] == UPLOAD else MOST_SENT
        self.too_large = self.begun = self.replaced = False

    async def run(self, headers: dict[str, str]) -> None:
        """Let the application answer, or say that the request is too large."""
        length = headers.get("content-length", "0")
        if not (length.isdecimal() and len(length) < 20 and int(length) <= self.left):
            return await self._say_too_large(headers)
        try:
            await self.app(self.scope, self._receive, self._send)
        except Exception:
            if not self.too_large:
                raise
        if self.too_large and not self.begun:
            await self._say_too_large(headers)
        return None

    async def _receive(self) -> Message:
        if self.too_large:
            return {"type": "http.disconnect"}
        message = await self.receive()
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            self.too_large = True
            return {"type": "http.disconnect"}
        return message

    async def _send(self, message: Message) -> None:
        if self.too_large and not self.begun:
            return
        if message["type"] == "http.response.start":
            self.begun = True
            if message["status"] == 422:  # its text repeats what was sent
                self.replaced = True
                await _refuse(self.send, 422, "the request is not understood")
                return
            message["headers"] = [*message["headers"], *HEADERS.items()]
        if not self.replaced:
            await self.send(message)

    async def _say_too_large(self, headers: dict[str, str]) -> None:
        await _drain(self.receive, headers)
        await _refuse(self.send, 413, "this is too large")


def _is_from_elsewhere(method: str, headers: dict[str, str]) -> bool:
    """Return whether a browser sends this on behalf of a page of another address.

    To follow a link to this page is no such request; to read from it or send to it is one.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    if origin is not None and origin.lower().partition("://")[2] != headers.get("host", "/").lower():
        return True
    is_link = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
    return site not in ("same-origin", "none") and not is_link


async def _drain(receive: Receive, headers: dict[str, str]) -> None:
    """Read a request and forget it: a browser that cannot send all of it shows no answer. Not for long, though."""
    if "expect" in headers:
        return  # the sender waits for a word before it sends, and gets the answer
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            message = await receive()
            while message["type"] == "http.request" and message.get("more_body"):
                message = await receive()


async def _refuse(send: Send, status: int, reason: str) -> None:
    """Answer with a reason, and close the connection: what is left of the request is not read."""
    body = json.dumps({"detail": reason}).encode()
    headers = {
        b"content-type": b"application/json",
        b"content-length": str(len(body)).encode(),
        b"connection": b"close",
    }
    start = {"type": "http.response.start", "status": status, "headers": [*headers.items(), *HEADERS.items()]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
