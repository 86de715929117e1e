"""A headless Chromium over its own DevTools protocol, for tests of pages. Skips where there is none.

with browser() as page:
    page.go("http://127.0.0.1:8321/")
    page.press("1")
    page.run("document.title")
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect
from websockets.sync.connection import Connection

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # containers run as root, where there is none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-extensions",
    "--remote-debugging-port=0",
)
SECONDS = 60
ACTIVE = "DevToolsActivePort"
STILL = "window.left === true || document.readyState !== 'complete' || location.href === 'about:blank'"
"""Not yet on the next page. A browser that has just started may open its empty page a second time."""


class Page:
    """One tab."""

    def __init__(self, socket: Connection) -> None:
        self._socket = socket
        self._id = 0
        self.console: list[str] = []
        """Errors the page met: thrown, logged, or refused by its policy."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result."""
        self._id += 1
        self._socket.send(json.dumps({"id": self._id, "method": method, "params": params}))
        while True:
            message = self._next()
            if message.get("id") == self._id:
                if "error" in message and method == "Runtime.evaluate":
                    return {"result": {}}  # the page it was meant for is gone
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def go(self, url: str) -> None:
        """Open a page and wait until all of it is there."""
        self.leave(lambda: self.send("Page.navigate", url=url))
        assert "chrome-error:" not in self.run("location.href"), f"{url} cannot be opened"

    def leave(self, act: Callable[[], object]) -> None:
        """Do what leads to another page, and wait until all of that is there."""
        self.run("window.left = true")
        act()
        until = time.monotonic() + SECONDS
        while self._value(STILL) is not False:
            assert time.monotonic() < until, f"no other page within {SECONDS} s"
            time.sleep(0.01)

    def _value(self, script: str) -> Any:
        """None while one page makes room for the next."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        return result["result"].get("value")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; of a promise, what it comes to."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression in the page is true."""
        until = time.monotonic() + SECONDS
        while self.run(script) is not True:
            assert time.monotonic() < until, f"not within {SECONDS} s: {script}"
            time.sleep(0.02)

    def loaded(self) -> list[str]:
        """What the page fetched besides itself."""
        return self.run("performance.getEntriesByType('resource').map((one) => one.name)")

    def press(self, key: str) -> None:
        """A key, down and up."""
        named = {"Tab": 9, "Enter": 13, "Escape": 27}
        code = named.get(key) or ord(key.upper())
        text = {"text": "\r"} if key == "Enter" else {} if key in named else {"text": key}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def look(self, *, dark: bool = False, width: int = 1100, height: int = 900, paper: bool = False) -> None:
        """How big the window is, whether the reader likes it dark, and whether it is to be printed."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media="print" if paper else "", features=[scheme])

    def picture(self, path: Path) -> None:
        """A PNG of the window."""
        import base64

        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def _next(self) -> dict[str, Any]:
        message = json.loads(self._socket.recv(timeout=SECONDS))
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.console.append(json.dumps(params["exceptionDetails"])[:500])
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.console.append(params["entry"]["text"])
        return message


@contextmanager
def browser() -> Iterator[Page]:
    """A tab of a Chromium of its own."""
    program = os.environ.get("ZEPHYR_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH and ZEPHYR_CHROMIUM names none")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={home}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with connect(_address(Path(home) / ACTIVE, process), max_size=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(SECONDS)


def _address(file: Path, process: "subprocess.Popen[bytes]") -> str:
    """Of the first tab, once the browser has written where it listens."""
    import urllib.request

    until = time.monotonic() + SECONDS
    while time.monotonic() < until and process.poll() is None:
        if file.exists() and (lines := file.read_text().split("\n"))[0]:
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                for target in json.load(answer):
                    if target["type"] == "page":
                        return target["webSocketDebuggerUrl"]
        time.sleep(0.05)
    pytest.fail(f"the browser did not start in {SECONDS} s, exit code {process.poll()}")
