"""Real processes: one group per backend, output in files, ends noticed by pidfd."""

import asyncio
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from anyio import to_thread

from ...domain.errors import SpawnFailed
from ...domain.output_text import plain
from ...domain.ports.outputs import full_part
from ...domain.ports.processes import (
    Listening,
    MarkedGroup,
    ProcessExit,
    ProcessIdentity,
    ProcessSpec,
    StopSignal,
    Work,
)
from .found import FoundProcess, find_process, marked_groups
from .listeners import who_listens
from .proc_table import MARK_VARIABLE, all_processes, cpu_s_of, read_process, readable, this_boot
from .signals import SIGNALS


@dataclass
class LocalProcess:
    """One child and the group it leads; reaped by its own pid, never by `wait(-1)` (N-B9)."""

    popen: subprocess.Popen[bytes]
    identity: ProcessIdentity | None = None
    outputs: tuple[Path, ...] = ()
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _exit: ProcessExit | None = None

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def exit(self) -> ProcessExit | None:
        if self._exit is None:
            self._reap()
        return self._exit

    async def wait(self) -> ProcessExit:
        while (ended := self.exit) is None:
            await self._ended.wait()
        return ended

    def signal_group(self, signal: StopSignal) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, SIGNALS[signal])

    def group_alive(self) -> bool:
        if self.exit is None:
            return True
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # a member changed its user; it lives
            return True
        return _any_running_member(self.pid)

    async def listening(self, port: int) -> Listening:
        return await who_listens(port, self.pid)

    async def work(self) -> Work:
        return await to_thread.run_sync(_work, self.pid, self.outputs)

    def watch(self, then: Callable[[], None] = lambda: None) -> None:
        """Have the event loop notice the end, by pidfd, or by a waiting thread where there is none, and call
        `then`.
        """
        loop = asyncio.get_running_loop()

        def ended() -> None:
            self._reap()
            then()

        try:
            descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):

            def wait_in_thread() -> None:
                self.popen.wait()
                with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                    loop.call_soon_threadsafe(ended)

            threading.Thread(target=wait_in_thread, daemon=True, name=f"wait-{self.pid}").start()
            return

        def readable() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            ended()

        loop.add_reader(descriptor, readable)

    def _reap(self) -> None:
        code = self.popen.poll()
        if code is not None and self._exit is None:
            self._exit = ProcessExit(code=code) if code >= 0 else ProcessExit(signal=-code)
            self._ended.set()


@dataclass(frozen=True)
class LocalProcesses:
    """`Processes` on this machine."""

    async def spawn(self, spec: ProcessSpec) -> LocalProcess:
        try:
            popen, identity = await to_thread.run_sync(_start, spec)
        except OSError as error:
            raise SpawnFailed(spec.program, error.strerror or str(error)) from error
        process = LocalProcess(popen, identity, (spec.stdout, spec.stderr))
        process.watch()
        return process

    async def find(self, identity: ProcessIdentity) -> FoundProcess | None:
        return find_process(identity)

    async def marked(self, owner: str) -> tuple[MarkedGroup, ...]:
        return await marked_groups(owner)

    async def tail(self, path: Path, *, lines: int, limit_bytes: int) -> str:
        return await to_thread.run_sync(_read_tail, path, lines, limit_bytes)


def _start(spec: ProcessSpec) -> tuple[subprocess.Popen[bytes], ProcessIdentity | None]:
    mode = spec.program.stat().st_mode
    if not spec.program.is_file():
        raise IsADirectoryError(21, "not a regular file")
    if not mode & 0o111:
        spec.program.chmod(stat.S_IMODE(mode) | 0o100 | (mode & 0o444) >> 2)
    for path in (spec.stdout, spec.stderr):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            path.replace(path.with_name(path.name + ".previous"))
        full_part(path).unlink(missing_ok=True)
    with _append(spec.stdout) as stdout, _append(spec.stderr) as stderr:
        popen = subprocess.Popen(
            [spec.program.name, *spec.arguments],
            executable=spec.program,
            cwd=spec.directory,
            env={**spec.environment, MARK_VARIABLE: spec.mark} if spec.mark else dict(spec.environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    # Nobody but this handle reaps it, so its entry is still there even if it has ended already.
    entry = read_process(popen.pid) if this_boot() else None
    return popen, ProcessIdentity(entry.pid, entry.started, this_boot()) if entry else None


def _append(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640), "ab")


def _any_running_member(group: int) -> bool:
    """Whether a member of `group` runs that is no zombie; True where the system does not tell."""
    if not readable():
        return True
    return any(process.group == group and process.running for process in all_processes())


def _work(group: int, outputs: tuple[Path, ...]) -> Work:
    return Work(
        cpu_s=cpu_s_of(group),
        output_bytes=sum(path.stat().st_size for path in outputs if path.exists()),
    )


def _read_tail(path: Path, lines: int, limit_bytes: int) -> str:
    end = _last_bytes(path, limit_bytes)
    if len(end) < limit_bytes:  # it may have been emptied a moment ago
        end = _last_bytes(full_part(path), limit_bytes - len(end)) + end
    return "\n".join(plain(end.decode("utf-8", errors="replace")).splitlines()[-lines:])


def _last_bytes(path: Path, limit_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit_bytes))
            return file.read(limit_bytes)
    except FileNotFoundError:
        return b""
