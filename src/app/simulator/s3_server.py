"""An S3 server of one's own on this machine: rclone's, over a directory."""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from ...adapters.network.local import LocalNetwork
from .failures import PartFailed, ServerMissing, last_lines

ACCESS_KEY = "DEMOACCESSKEY"
SECRET_KEY = "demo-secret-key"  # noqa: S105 - of servers that live for seconds, on loopback
BUCKET = "localai"
_COMES_UP_S = 20.0
_GOES_DOWN_S = 5.0


@dataclass(frozen=True)
class S3Server:
    """`rclone serve s3` on 127.0.0.1:`port`, with one bucket."""

    port: int

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> Mapping[str, str]:
        """What a worker that uses it is told."""
        return {
            "LOCALAI_STORAGE_URL": self.url,
            "LOCALAI_STORAGE_BUCKET": BUCKET,
            "LOCALAI_STORAGE_ACCESS_KEY": ACCESS_KEY,
            "LOCALAI_STORAGE_SECRET_KEY": SECRET_KEY,
        }


@asynccontextmanager
async def s3_server(directory: Path, port: int) -> AsyncIterator[S3Server]:
    """A server whose objects lie below `directory`.

    Raises:
        ServerMissing: the program is not installed.
        PartFailed: it ended, or does not listen.
    """
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        raise ServerMissing("rclone")
    (directory / BUCKET).mkdir(parents=True, exist_ok=True)
    log = directory.with_suffix(".log")
    process = await anyio.open_process(
        [
            *(program, "serve", "s3", "--config", os.devnull, "--addr", f"127.0.0.1:{port}"),
            *("--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--log-file", str(log), str(directory)),
        ],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with anyio.move_on_after(_COMES_UP_S) as limit:
            while LocalNetwork().can_listen(port):
                if process.returncode is not None:
                    raise PartFailed(f"rclone ended with exit code {process.returncode}", last_lines(log))
                await anyio.sleep(0.02)
        if limit.cancelled_caught:
            raise PartFailed(f"rclone does not listen after {_COMES_UP_S:g} s", last_lines(log))
        yield S3Server(port)
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
            with anyio.move_on_after(_GOES_DOWN_S) as limit:
                await process.wait()
            if limit.cancelled_caught:
                process.kill()
                await process.wait()
            await process.aclose()
