"""Keeps a server on the loopback address to the person in front of it: other sites in the same browser are refused.

A page elsewhere can make a browser send requests to 127.0.0.1, directly or by a name of its own that it lets point
there (DNS rebinding). The first carry its Origin, the second its name as Host; both are checked first.
"""

from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMES = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer: nothing but the server's own scripts and styles, no other page around it, no copy kept."""


class Loopback:
    """The application `app` behind these checks."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        why = refusal(scope["method"], Headers(scope=scope))
        app: Any = self.app if why is None else PlainTextResponse(f"refused: {why}\n", 403)
        await app(scope, receive, guarded)


def refusal(method: str, headers: Headers) -> str | None:
    """Why a request is not this person's own; None where it is."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or name_of(hosts[0]) not in NAMES:
        return f"Host is {', '.join(hosts) or 'missing'}; wanted one of {', '.join(NAMES)}"
    if any(origin != f"http://{hosts[0]}" for origin in origins):
        return f"Origin is {', '.join(origins)}; wanted http://{hosts[0]}"
    if method not in ("GET", "HEAD") and not origins:
        return f"a {method} without an Origin; wanted http://{hosts[0]}"
    return None


def name_of(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.rpartition(":")
    return name.lower() if colon and port.isdigit() else host.lower()
