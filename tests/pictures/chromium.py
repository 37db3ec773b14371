"""A headless Chromium, driven over a pipe by the DevTools protocol: messages of JSON, each ended by a zero byte."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check",
    "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe", "about:blank",
)  # fmt: skip
# Chromium reads commands from descriptor 3 and writes answers to 4; the pipes' own numbers may be among these.
START = """
import fcntl, os, sys
r, w = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3])
os.dup2(r, 3), os.dup2(w, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
PATIENCE = 60.0  # seconds until an answer must be there


def found():
    """The program, or None where there is none; one from a snap cannot read the files of tests."""
    paths = filter(None, map(shutil.which, NAMES))
    return next((path for path in paths if "/snap" not in os.path.realpath(path)), None)


class Browser:
    """One browser; `events` are what it told without being asked."""

    def __init__(self, folder):
        here, there = os.pipe(), os.pipe()
        program = [sys.executable, "-c", START, str(here[0]), str(there[1]), found(), *OPTIONS]
        program.insert(-1, f"--user-data-dir={folder}")
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(program, pass_fds=(here[0], there[1]), stdout=quiet, stderr=quiet)
        os.close(here[0]), os.close(there[1])
        self.write, self.read = here[1], there[0]
        os.set_blocking(self.read, False)
        self.number, self.rest, self.events = 0, b"", []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        self.process.terminate()
        self.process.wait()
        os.close(self.write), os.close(self.read)

    def call(self, method, **params):
        """The result of a command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if not method.startswith("Target."):
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        answer = self.wait(lambda told: told.get("id") == self.number)
        assert "error" not in answer, answer
        return answer["result"]

    def wait(self, wanted):
        """The next message that is wanted; others are kept as events."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            while b"\0" in self.rest:
                text, self.rest = self.rest.split(b"\0", 1)
                told = json.loads(text)
                if "method" in told:
                    self.events.append(told)
                if wanted(told):
                    return told
            try:
                told = os.read(self.read, 1 << 20)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            if not told:
                raise EOFError(f"Chromium ended with code {self.process.wait()}")
            self.rest += told
        raise TimeoutError("Chromium did not answer")

    def open(self, path, width=1200, dark=False):
        """Load a file at a width and in a theme."""
        self.events.clear()
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url=path.as_uri())
        if not any(told["method"] == "Page.loadEventFired" for told in self.events):
            self.wait(lambda told: told.get("method") == "Page.loadEventFired")

    def value(self, expression):
        """What a JavaScript expression is in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key):
        """Press a key and let it go."""
        text = {"Enter": "\r", "Tab": "\t"}[key]
        code = {"Enter": 13, "Tab": 9}[key]
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def screenshot(self, path):
        """A picture of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(picture))

    def complaints(self):
        """Errors and warnings of the page, as the console shows them."""
        return [
            told["params"] for told in self.events
            if told["method"] == "Runtime.exceptionThrown" or told["method"] == "Log.entryAdded"
            or told["method"] == "Runtime.consoleAPICalled"
        ]  # fmt: skip

    def requests(self):
        """What was asked of files and of the network."""
        return [t["params"]["request"]["url"] for t in self.events if t["method"] == "Network.requestWillBeSent"]
