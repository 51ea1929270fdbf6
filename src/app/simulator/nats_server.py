"""A NATS server of one's own on this machine, which can be taken away and brought back."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import Process

from ...adapters.network.local import LocalNetwork
from .failures import PartFailed, ServerMissing, last_lines

_COMES_UP_S = 20.0
_GOES_DOWN_S = 5.0


@dataclass
class NatsServer:
    """`nats-server` on 127.0.0.1:`port`, its log in `directory`. Whoever starts it stops it.

    `settings` are more of the server's own, in its language.
    """

    directory: Path
    port: int
    settings: str = ""
    _process: Process | None = field(default=None, init=False)

    @property
    def log(self) -> Path:
        """Where it writes."""
        return self.directory / "nats-server.log"

    async def start(self) -> None:
        """Return once it listens; one that runs goes on.

        Raises:
            ServerMissing: the program is not installed.
            PartFailed: it ended, or does not listen.
        """
        if self._process is not None:
            return
        program = shutil.which(
            "nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        )
        if program is None:
            raise ServerMissing("nats-server")
        settings = self.directory / "nats-server.conf"
        settings.write_text(self.settings)
        self._process = server = await anyio.open_process(
            [
                *(program, "--config", str(settings), "--log", str(self.log)),
                *("--addr", "127.0.0.1", "--port", str(self.port)),
            ],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with anyio.move_on_after(_COMES_UP_S) as limit:
            while LocalNetwork().can_listen(self.port):
                if server.returncode is not None:
                    raise PartFailed(
                        f"nats-server ended with exit code {server.returncode}", last_lines(self.log)
                    )
                await anyio.sleep(0.02)
        if limit.cancelled_caught:
            raise PartFailed(f"nats-server does not listen after {_COMES_UP_S:g} s", last_lines(self.log))

    async def stop(self) -> None:
        """Return once it is gone; idempotent, and not to be cut short."""
        server, self._process = self._process, None
        if server is None:
            return
        with anyio.CancelScope(shield=True):
            if server.returncode is None:
                server.terminate()
            with anyio.move_on_after(_GOES_DOWN_S) as limit:
                await server.wait()
            if limit.cancelled_caught:
                server.kill()
                await server.wait()
            await server.aclose()
