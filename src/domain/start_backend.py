"""Starting one backend process: what it is started with, and when it counts as ready."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import anyio

from .backend import ReplicaKey
from .collect_output import CollectOutput
from .deaths import Death, Deaths
from .errors import BackendUnavailable, BackendUnhealthy, SpawnFailed
from .ports.backend_client import BackendClient
from .ports.filesystem import FileSystem
from .ports.processes import Listening, Process, Processes, ProcessExit, ProcessSpec
from .ready_deadline import ReadyDeadline
from .supervision_errors import BackendDied, BackendNotReady, BackendNotStarted, StoppedDuringStartup

_HEALTH_CALL_S = 2.0  # one Health call; the seed's figure
_TAIL_LINES = 20  # of stderr in a reply, as LocalAI shows
_TAIL_BYTES = 16 * 1024  # and never more than this (N-B30)
# Polls follow the time already waited: a start is never lengthened by more than 1 %, nor polled faster
# than every 5 ms or slower than every 100 ms.
_POLL_SHARE = 0.01
_POLL_MIN_S = 0.005
_POLL_MAX_S = 0.1
_STDERR = ".stderr.log"
_NAME_CHARACTERS = 180  # of the 255 a file system gives; suffixes follow


async def _no_mark() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Launched:
    """A process that was spawned for `key` to listen on `port`; `stderr` takes what it complains about.

    `started_s` is when, by the loop's clock; `oom_kills` what the kernel had counted by then.
    """

    key: ReplicaKey
    port: int
    process: Process
    stderr: Path
    mark: str = ""
    started_s: float = 0.0
    oom_kills: int | None = None

    @property
    def address(self) -> str:
        """Where this machine reaches it."""
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True)
class BackendStarter:
    """Spawns backends and waits until they are ready.

    `environment` is complete (see `backend_environment`); `output_directory` takes their output files.
    `ready_timeout_s` is how long one is waited for without a sign of work, and `ready_limit_s` how long in
    all: a seed frontend waits 5 minutes for its reply.
    `next_mark` gives the mark of the next launch, "" for none.
    """

    processes: Processes
    client: BackendClient
    filesystem: FileSystem
    deaths: Deaths
    output: CollectOutput
    environment: Mapping[str, str]
    output_directory: Path
    ready_timeout_s: float = 30.0
    ready_limit_s: float = 270.0
    next_mark: Callable[[], Awaitable[str]] = _no_mark

    async def launch(self, key: ReplicaKey, program: Path, port: int) -> Launched:
        """Spawn `program` for `key`; also if cancelled, no process is left that nobody knows of.

        Raises:
            BackendNotStarted: it could not be spawned.
        """
        stderr = self._stderr_of(key)
        mark = await self.next_mark()
        spec = ProcessSpec(
            program=program,
            arguments=("--addr", f"0.0.0.0:{port}"),
            environment={**self.environment, **await self._vulkan_drivers(program.parent)},
            stdout=_stdout_beside(stderr),
            stderr=stderr,
            mark=mark,
        )
        started_s, oom_kills = anyio.current_time(), self.deaths.oom.count()
        try:
            with anyio.CancelScope(shield=True):
                process = await self.processes.spawn(spec)
        except SpawnFailed as error:
            raise BackendNotStarted(key, error) from error
        self.output.follow(key, stdout=spec.stdout, stderr=stderr)
        return Launched(key, port, process, stderr, mark, started_s, oom_kills)

    def found(self, key: ReplicaKey, port: int, process: Process, mark: str) -> Launched:
        """`process`, which an earlier worker launched for `key`, as this one would have launched it."""
        stderr = self._stderr_of(key)
        self.output.follow(key, stdout=_stdout_beside(stderr), stderr=stderr)
        return Launched(
            key,
            port,
            process,
            stderr,
            mark,
            anyio.current_time(),
            self.deaths.oom.count(),
        )

    def _stderr_of(self, key: ReplicaKey) -> Path:
        return self.output_directory / f"{_file_name(key)}{_STDERR}"

    async def ended(self, launched: Launched) -> None:
        """Take in the last words of `launched`, whose whole group is gone."""
        await self.output.finish(stdout=_stdout_beside(launched.stderr), stderr=launched.stderr)

    async def until_ready(self, launched: Launched, stopping: Callable[[], bool]) -> None:
        """Return when the child lives, the listener on its port is its own, and Health says OK (D6).

        Raises:
            StoppedDuringStartup: `stopping` says so.
            BackendDied, BackendNotReady: it ended, or was not ready in time; it may still live.
        """
        process = launched.process
        began_s = anyio.current_time()
        deadline = ReadyDeadline(began_s, self.ready_timeout_s, self.ready_limit_s)
        last = "nobody listens on its port"
        with anyio.CancelScope(deadline=deadline.at_s) as scope:
            while True:
                if stopping():
                    raise StoppedDuringStartup(launched.key)
                if (ended := process.exit) is not None:
                    raise BackendDied(await self.death(launched, ended))
                listening = await process.listening(launched.port)
                if listening in {Listening.OWN, Listening.UNKNOWN}:
                    try:
                        await self.client.health(launched.address, timeout_s=_HEALTH_CALL_S)
                    except (BackendUnavailable, BackendUnhealthy) as error:
                        last = str(error)
                    else:
                        if is_alive(process) and not stopping():
                            return
                        continue
                elif listening is Listening.FOREIGN:
                    last = f"another program listens on port {launched.port}"
                if anyio.current_time() >= deadline.next_look_s:
                    deadline.look(await process.work(), now_s=anyio.current_time())
                    scope.deadline = deadline.at_s
                waited_s = anyio.current_time() - began_s
                await anyio.sleep(min(max(waited_s * _POLL_SHARE, _POLL_MIN_S), _POLL_MAX_S))
        waited_s = anyio.current_time() - began_s
        stderr = await self.last_words(launched)
        raise BackendNotReady(launched.key, waited_s, deadline.quiet_s, last, stderr)

    async def death(self, launched: Launched, how: ProcessExit) -> Death:
        """What is known of the end of `launched`, right after it."""
        return self.deaths.establish(
            launched.key,
            pid=launched.process.pid,
            how=how,
            uptime_s=anyio.current_time() - launched.started_s,
            kills_before=launched.oom_kills,
            stderr=await self.last_words(launched),
        )

    async def last_words(self, launched: Launched) -> str:
        """The end of its stderr, bounded."""
        return await self.processes.tail(launched.stderr, lines=_TAIL_LINES, limit_bytes=_TAIL_BYTES)

    async def _vulkan_drivers(self, directory: Path) -> dict[str, str]:
        """Newer backends bring their Vulkan drivers; without these names they run on the CPU (G-F22)."""
        manifests = directory / "vulkan" / "icd.d"
        if await self.filesystem.stat(manifests) is None:
            return {}
        names = [entry.name for entry in await self.filesystem.list_directory(manifests)]
        listed = ":".join(str(manifests / name) for name in names if name.endswith(".json"))
        return {"VK_DRIVER_FILES": listed, "VK_ICD_FILENAMES": listed} if listed else {}


def is_alive(process: Process) -> bool:
    """Whether the leader of its group runs."""
    return process.exit is None


def _stdout_beside(stderr: Path) -> Path:
    return stderr.with_name(stderr.name.removesuffix(_STDERR) + ".stdout.log")


def _file_name(key: ReplicaKey) -> str:
    """A file name for `key`: readable, unique, and short enough for every file system."""
    name = quote(str(key), safe="#@+ ")
    if len(name) <= _NAME_CHARACTERS:
        return name
    return f"{name[:_NAME_CHARACTERS]}~{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
