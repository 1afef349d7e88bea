"""A headless Chromium, driven by its own chromedriver over HTTP: the W3C WebDriver protocol and nothing else."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars",
)  # fmt: skip
_KEYS = {
    "left": "\ue012",
    "right": "\ue014",
    "escape": "\ue00c",
    "enter": "\ue007",
    "tab": "\ue004",
    "down": "\ue015",
}


class Browser:
    """One page."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, url: str) -> None:
        """Goes to `url` and waits until it has loaded."""
        _call(f"{self._session}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of a function returns."""
        return _call(f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector: str) -> None:
        """Clicks the first element that fits, as a mouse does."""
        _call(f"{self._session}/element/{self._find(selector)}/click", {})

    def press(self, *keys: str) -> None:
        """Presses keys one after the other: letters, or left, right, down, escape, enter, tab."""
        actions = [{"type": kind, "value": _KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self._act({"type": "key", "id": "keyboard", "actions": actions})

    def hover(self, x: float, y: float) -> None:
        """Moves the pointer to a point of the window."""
        moves = [{"type": "pointerMove", "duration": 0, "x": round(x + by), "y": round(y)} for by in (-2, 0)]
        self._act({"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": moves})

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Presses the button at one point of the window and lets go at another."""
        (x, y), (to_x, to_y) = start, end
        actions = [
            {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "duration": 50, "x": round(to_x), "y": round(to_y)},
            {"type": "pointerUp", "button": 0},
        ]
        self._act({"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What the `browser` console or the `performance` log has had since the last call."""
        entries: list[dict[str, Any]] = _call(f"{self._session}/se/log", {"type": kind})
        return entries

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of Chromium's DevTools."""
        return _call(f"{self._session}/goog/cdp/execute", {"cmd": name, "params": parameters})

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Sets the window's size and the colour scheme that pages see."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])

    def _find(self, selector: str) -> str:
        found = _call(f"{self._session}/element", {"using": "css selector", "value": selector})
        return str(next(iter(found.values())))

    def _act(self, source: dict[str, Any]) -> None:
        _call(f"{self._session}/actions", {"actions": [source]})


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A fresh browser whose profile is in `folder`, which is empty."""
    assert CHROMEDRIVER
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen(
        [CHROMEDRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        server = f"http://127.0.0.1:{port}"
        _await(server)
        options = {"binary": CHROMIUM, "args": [*_FLAGS, f"--user-data-dir={folder}"]}
        logs = {"browser": "ALL", "performance": "ALL"}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": logs}}
        session = f"{server}/session/{_call(f'{server}/session', {'capabilities': wanted})['sessionId']}"
        yield Browser(session)
        urllib.request.urlopen(urllib.request.Request(session, method="DELETE"), timeout=60).close()
    finally:
        driver.terminate()
        driver.wait(10)


@contextmanager
def opened(url: str, profile: Path, width: int, height: int) -> Iterator[Browser]:
    """A page in a window of this size; the test is skipped where there is no Chromium."""
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("there is no chromium with chromedriver on PATH (apt-get install chromium chromium-driver)")
    with browser(profile) as page:
        page.resize(width, height)
        page.log("performance")  # the browser's own first page
        page.open(url)
        yield page


def stays_at_home(page: Browser) -> bool:
    """Whether the page has logged nothing, and loaded something, but from files and from itself alone."""
    messages = [json.loads(entry["message"])["message"] for entry in page.log("performance")]
    requests = [each for each in messages if each["method"] == "Network.requestWillBeSent"]
    urls = [each["params"]["request"]["url"] for each in requests]
    return page.log("browser") == [] and bool(urls) and all(url.startswith(("file:", "data:")) for url in urls)


def _await(server: str) -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"{server}/status", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("chromedriver does not answer")


def _call(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        with error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None
