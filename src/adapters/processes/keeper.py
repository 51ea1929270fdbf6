"""Posting the keeper: a small process beside the worker that outlives it."""

import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio import to_thread

from .local import LocalProcess
from .proc_table import this_boot
from .state_files import KEEPER_LOG

log = logging.getLogger(__name__)

_PASSED = ("PATH", "HOME", "LANG", "TZ", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")
_LOG_LIMIT_BYTES = 256 * 1024
_LIVES_S = 5.0  # one that ends sooner would end again: it is not posted anew before the next launch
_DISMISS_S = 5.0


@dataclass
class LocalKeeper:
    """`keeper_main` as a process of its own, posted again when it is lost. It inherits no secret."""

    directory: Path
    _process: LocalProcess | None = None
    _posted_s: float = 0.0
    _posting: anyio.Lock = field(default_factory=anyio.Lock)

    async def post(self) -> None:
        async with self._posting:
            if not this_boot() or (self._process is not None and self._process.exit is None):
                return
            try:
                popen = await to_thread.run_sync(self._start)
            except OSError as error:
                self._complain(error.strerror or str(error))
            else:
                self._watch(popen)

    async def dismiss(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.exit is None:
            process.popen.terminate()
            with anyio.move_on_after(_DISMISS_S) as limit:
                await process.wait()
            if limit.cancelled_caught:
                process.popen.kill()
                await process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        path = self.directory / KEEPER_LOG
        if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
            path.unlink()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.keeper_main", str(self.directory)],
                cwd="/",
                env={name: os.environ[name] for name in _PASSED if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)

    def _watch(self, popen: subprocess.Popen[bytes]) -> None:
        process = self._process = LocalProcess(popen)
        self._posted_s = time.monotonic()
        process.watch(lambda: self._lost(process))

    def _lost(self, process: LocalProcess) -> None:
        """Post another one, unless this one was dismissed or could not even begin."""
        if process is not self._process:
            return
        lived_s = time.monotonic() - self._posted_s
        if lived_s < _LIVES_S:
            self._complain(
                f"it ended after {lived_s:.1f} s: {process.exit}; see {self.directory / KEEPER_LOG}"
            )
            return
        log.warning("keeper lost, posting another: pid=%d how=%s", process.pid, process.exit)
        try:
            self._watch(self._start())
        except OSError as error:
            self._complain(error.strerror or str(error))

    def _complain(self, reason: str) -> None:
        log.error("no keeper: if this worker is killed, its backends live on until it is back: %s", reason)
