# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium over its debugging pipe, with the standard library alone."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # a container's root has no other way
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--mute-audio",
    "--hide-scrollbars",
    "--autoplay-policy=no-user-gesture-required",
)


def find_browser() -> str | None:
    """Path of a Chromium on this machine; nothing is installed where there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Chromium:
    """One browser with one page. Commands are those of the DevTools protocol; events are kept in `events`."""

    def __init__(self, browser: str) -> None:
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (its_input, self.output), (self.input, its_output) = os.pipe(), os.pipe()
        # The browser reads from 3 and writes to 4, which may be among the pipes' own numbers: move those away first.
        reads, writes = (fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (its_input, its_output))
        start = f"import os, sys; os.dup2({reads}, 3); os.dup2({writes}, 4); os.execv(sys.argv[1], sys.argv[1:])"
        command = [browser, *FLAGS, f"--user-data-dir={self.folder.name}", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", start, *command],
            pass_fds=(reads, writes),
            stderr=subprocess.DEVNULL,
        )
        for end in (its_input, its_output, reads, writes):
            os.close(end)
        self.numbers, self.buffer, self.events = itertools.count(1), b"", list[dict[str, Any]]()
        self.session: str | None = None
        page = next(t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, /, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.output, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read(120.0)
            if reply.get("id") == number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']['message']}")
                return reply["result"]
            self.events.append(reply)

    def _read(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            if not select.select([self.input], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"the browser said nothing for {seconds:.0f} s")
            if not (more := os.read(self.input, 1 << 20)):
                raise RuntimeError("the browser has gone")
            self.buffer += more
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a file and wait for its `load` event."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = "dark" if dark else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url="about:blank")
        self.events.clear()
        self.send("Page.navigate", url=page.resolve().as_uri())
        self.until("document.readyState === 'complete' && location.protocol === 'file:'")

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        reply = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in reply:
            raise RuntimeError(reply["exceptionDetails"].get("exception", {}).get("description", expression))
        return reply["result"].get("value")

    def until(self, expression: str, seconds: float = 240.0) -> Any:
        end = time.monotonic() + seconds
        while not (value := self.ask(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {expression}")
            time.sleep(0.05)
        return value

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 else "")

    def errors(self) -> list[str]:
        """Exceptions, console errors and the browser's own complaints since the page was opened."""
        self.ask("1")  # brings in what is still on its way
        found = []
        for event in self.events:
            entry = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(str(entry["exceptionDetails"]))
            if event.get("method") == "Log.entryAdded" and entry["entry"]["level"] == "error":
                found.append(entry["entry"]["text"])
            if event.get("method") == "Runtime.consoleAPICalled" and entry["type"] == "error":
                found.append(str(entry["args"]))
        return found

    def requests(self) -> list[str]:
        """Addresses that the page asked for, itself aside."""
        sent = [e["params"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [s["request"]["url"] for s in sent if s.get("type") != "Document"]

    def screenshot(self, file: Path, full: bool = False) -> None:
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self.session = None
        try:
            self.send("Browser.close")
            self.process.wait(30)
        except (OSError, RuntimeError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.input)
        os.close(self.output)
        self.folder.cleanup()
