"""Real servers as tests need them: child processes on free ports of this machine."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

START_S = 10.0


def free_port() -> int:
    """A TCP port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_executable(name: str) -> str:
    """The program beside this Python or on PATH; skips the test if there is none."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@dataclass
class NatsServer:
    """A nats-server with `config` (its own language), which can be stopped and started on the same port."""

    directory: Path
    config: str = ""
    port: int = field(default_factory=free_port)
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Run it and wait until it listens; does nothing while it runs."""
        if self._process is not None:
            return
        config = self.directory / f"nats-{self.port}.conf"
        config.write_text(f'listen: "127.0.0.1:{self.port}"\n{self.config}\n')
        log = self.directory / f"nats-{self.port}.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [find_executable("nats-server"), "-c", config], stdout=output, stderr=output
            )
        deadline_s = time.monotonic() + START_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                pytest.fail(f"nats-server does not listen on {self.port}:\n{log.read_text()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it like a crash would; does nothing while it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_S)
            self._process = None

    def reload(self, config: str) -> None:
        """Let the running server read `config` anew."""
        self.config = config
        (self.directory / f"nats-{self.port}.conf").write_text(f'listen: "127.0.0.1:{self.port}"\n{config}\n')
        assert self._process is not None
        subprocess.run(
            [find_executable("nats-server"), "--signal", f"reload={self._process.pid}"], check=True
        )

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One nats-server for the whole run: anybody may do anything, but listen on `secret.>`."""
    server = NatsServer(
        tmp_path_factory.mktemp("nats"),
        """
        no_auth_user: anybody
        authorization {
          default_permissions { subscribe { deny: "secret.>" } }
          users: [
            { user: anybody, password: "" }
            { user: worker, password: "p@ss, word" }
          ]
        }
        """,
    )
    server.start()
    yield server
    server.stop()
