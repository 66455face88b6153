"""A headless Chromium, driven over a pipe by the Chrome DevTools Protocol."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

#: Seconds that an answer may take on a busy machine.
PATIENCE = 60

# Chromium reads its orders from descriptor 3 and answers on 4; ours may be in their way.
_START = """\
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for descriptor, end in zip((3, 4), ends):
    os.dup2(end, descriptor)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A running browser; `page` opens a tab."""

    def __init__(self, executable: str, folder: Path) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        options = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
            *("--remote-debugging-pipe", "--hide-scrollbars", f"--user-data-dir={folder}"),
        ]
        ends = (str(theirs_in), str(theirs_out))
        self._process = subprocess.Popen(
            [sys.executable, "-SEc", _START, *ends, executable, *options],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._number = 0
        self._rest = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Give an order and wait for its answer; what happens meanwhile goes to `events`."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            order["sessionId"] = session
        os.write(self._out, json.dumps(order).encode() + b"\0")
        while True:
            said = self._read()
            if said.get("id") != self._number:
                self.events.append(said)
            elif "error" in said:
                raise RuntimeError(f"{method}: {said['error']}")
            else:
                return said["result"]

    def wait(self, method: str, session: str) -> None:
        """Wait for an event of a session, unless it has happened."""
        while not any(
            said.get("method") == method and said.get("sessionId") == session
            for said in self.events
        ):
            self.events.append(self._read())

    def forget(self, method: str, session: str) -> None:
        """Forget the events of one kind: what is waited for then is yet to come."""
        self.events = [
            said
            for said in self.events
            if (said.get("method"), said.get("sessionId")) != (method, session)
        ]

    def page(self, *, javascript: bool = True) -> "Page":
        """An empty tab."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, attached["sessionId"], context)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.size(1280)
        page.scheme("light")
        page.call("Emulation.setScriptExecutionDisabled", value=not javascript)
        return page

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(OSError, RuntimeError):
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(end - time.monotonic(), 0))
            if not ready:
                raise TimeoutError("the browser does not answer")
            chunk = os.read(self._in, 2**20)
            if not chunk:
                raise RuntimeError("the browser has ended")
            self._rest += chunk
        said, _, self._rest = self._rest.partition(b"\0")
        return json.loads(said)


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self.browser, self.session, self.context = browser, session, context

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give an order to this tab."""
        return self.browser.call(method, self.session, **parameters)

    def open(self, path: Path) -> "Page":
        """Load a file and wait until it is there."""
        self.browser.forget("Page.loadEventFired", self.session)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.browser.wait("Page.loadEventFired", self.session)
        return self

    def size(self, width: int, height: int = 900) -> None:
        """Make the window so large."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def scheme(self, name: str) -> None:
        """Prefer a light or a dark scheme."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def run(self, expression: str) -> Any:
        """The value of an expression of JavaScript, which may be a promise."""
        # Works where the page's own scripts may not run, too.
        said = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression of JavaScript is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.01)

    def key(self, name: str, code: int, text: str = "") -> None:
        """Press a key and let it go."""
        key: dict[str, Any] = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", **key, **({"text": text} if text else {})
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def events(self, *methods: str) -> list[dict[str, Any]]:
        """What has happened in this tab so far, of some kinds."""
        self.run("0")
        return [
            said["params"]
            for said in self.browser.events
            if said.get("sessionId") == self.session and said["method"] in methods
        ]

    @property
    def complaints(self) -> list[str]:
        """What the console says: errors, warnings, what the page's policy refused."""
        said = self.events("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [json.dumps(one) for one in said]

    @property
    def requests(self) -> list[str]:
        """The addresses that were asked for: what the page's policy stopped was not."""
        failed = self.events("Network.loadingFailed")
        stopped = {said["requestId"] for said in failed if said.get("blockedReason") == "csp"}
        sent = self.events("Network.requestWillBeSent")
        return [said["request"]["url"] for said in sent if said["requestId"] not in stopped]

    def close(self) -> None:
        """Close the tab, and forget all that it stored."""
        self.call("Page.close")
        with contextlib.suppress(RuntimeError):
            self.browser.call("Target.disposeBrowserContext", browserContextId=self.context)


def found() -> str | None:
    """The path of a browser, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser that keeps its files in a folder; without one the test is skipped."""
    executable = found()
    if executable is None or sys.platform == "win32":
        pytest.skip(f"no browser on PATH: {', '.join(NAMES)}")
    started = Browser(executable, folder)
    try:
        yield started
    finally:
        started.close()
