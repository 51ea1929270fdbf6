"""A real browser for pages that we write: Debian's chromium, driven over its DevTools protocol."""

import itertools
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

_ANSWERS_S = 60.0


@dataclass
class Page:
    """One tab. `complaints`: what the page logged as an error or threw."""

    connection: ClientConnection
    session: str
    complaints: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(100))

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of one DevTools command."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters, "sessionId": self.session}
        self.connection.send(json.dumps(message))
        while True:
            answer = json.loads(self.connection.recv(timeout=_ANSWERS_S))
            if answer.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}:
                self.complaints.append(json.dumps(answer["params"]))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, path: Path, *, scheme: str, width: int = 1100) -> None:
        """Show a file as somebody sees it who prefers `scheme` (`light` or `dark`)."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        self.call("Page.navigate", url=path.as_uri())
        self.evaluate(
            "new Promise(done => document.readyState === 'complete' && location.protocol === 'file:'"
            " ? done(true) : addEventListener('load', () => done(true)))"
        )


@contextmanager
def chromium_page(directory: Path) -> Iterator[Page]:
    """A page in a browser of its own, whose profile lies in `directory`; skips where there is no chromium."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not on PATH (Debian's package chromium)")
    arguments = (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--remote-debugging-port=0",
    )
    command = [program, *arguments, f"--user-data-dir={directory / 'profile'}", "about:blank"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as browser:
        try:
            assert browser.stderr is not None
            said = []
            for line in browser.stderr:
                said.append(line)
                if "DevTools listening on " in line:
                    break
            else:
                pytest.fail(f"chromium does not start: {''.join(said)[-2000:]}")
            url = said[-1].partition("DevTools listening on ")[2].strip()
            with connect(url, max_size=None, open_timeout=_ANSWERS_S) as connection:
                yield _first_page(connection)
        finally:
            browser.terminate()


def _first_page(connection: ClientConnection) -> Page:
    def ask(number: int, method: str, **parameters: Any) -> Any:
        connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := json.loads(connection.recv(timeout=_ANSWERS_S))).get("id") != number:
            pass
        return answer["result"]

    target = ask(1, "Target.createTarget", url="about:blank")["targetId"]
    session = ask(2, "Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    page = Page(connection, session)
    for domain in ("Page", "Runtime", "Log"):
        page.call(f"{domain}.enable")
    return page
