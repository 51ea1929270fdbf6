"""A state directory, locked by flock: the kernel lets go of it when the worker ends, however it ends."""

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio import to_thread

from ...domain.errors import FileUnwritable
from ...domain.ports.state_lock import StateInUse, Tenure
from .proc_table import read_process
from .state_files import LOCK_FILE, OWNER_FILE, LockNote, read_note, try_lock, write_note

_OWNER = re.compile("[0-9a-f]{32}")
_POLL_S = 0.02
# The keeper looks whether the lock is free by taking it for a moment; a worker that comes just then waits.
_PATIENCE_S = 1.0
_KEEPER_ENDS_S = 20.0  # on top of the grace it gives


@dataclass
class LocalStateLock:
    """`directory` of this machine; the keeper gives up after `window_s` and ends backends with `grace_s`."""

    directory: Path
    window_s: float
    grace_s: float
    _descriptor: int | None = None

    async def take(self) -> Tenure:
        descriptor, owner, first = await to_thread.run_sync(self._open)
        try:
            await self._lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return Tenure(owner, secrets.token_hex(8), first)

    async def _lock(self, descriptor: int) -> None:
        began_s = time.monotonic()
        while True:
            with _writing(self.directory):
                if try_lock(descriptor):
                    write_note(descriptor, LockNote(os.getpid(), self.window_s, self.grace_s))
                    return
            holder = read_note(self.directory).pid
            if time.monotonic() - began_s > self._patience_s(holder):
                raise StateInUse(self.directory, holder)
            await anyio.sleep(_POLL_S)

    async def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _patience_s(self, holder: int) -> float:
        entry = read_process(holder) if holder and holder != os.getpid() else None
        if entry is not None and entry.running:
            return _PATIENCE_S
        return read_note(self.directory).grace_s + _KEEPER_ENDS_S  # a dead worker's keeper is at work

    def _open(self) -> tuple[int, str, bool]:
        with _writing(self.directory):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                return descriptor, *_owner(self.directory)
            except BaseException:
                os.close(descriptor)
                raise


def _owner(directory: Path) -> tuple[str, bool]:
    """The directory's name for ever, and whether it was made now; of two who make one at a time one wins."""
    path = directory / OWNER_FILE
    made = ""
    while True:
        try:
            owner = path.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            owner = ""
        if _OWNER.fullmatch(owner):
            return owner, owner == made
        path.unlink(missing_ok=True)
        temporary = directory / f".{OWNER_FILE}.{secrets.token_hex(8)}.incoming"
        made = secrets.token_hex(16)
        temporary.write_text(made, encoding="ascii")
        temporary.chmod(0o600)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = "the worker keeps its lock and journal there; LOCALAI_WORKER_STATE_PATH names another place"
        reason = f"{error.strerror or error}; {why}"
        raise FileUnwritable(directory, reason) from error
