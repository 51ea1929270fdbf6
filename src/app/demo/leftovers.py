"""What a demo could leave behind, found by its temporary directory: processes, ports, half-written files."""

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from ...adapters.network.local import LocalNetwork

_PRIVATE_SUFFIXES = (".incoming", ".partial", ".tmp")


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that should be gone."""

    what: str

    def __str__(self) -> str:
        return self.what


def processes_of(directory: Path) -> list[psutil.Process]:
    """Processes that work in `directory` or name it on their command line, this one left out."""
    found = []
    marker = str(directory)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.cwd().startswith(marker) or any(marker in word for word in process.cmdline()):
                found.append(process)
    return found


def end_processes_of(directory: Path, *, grace_s: float = 5.0) -> list[int]:
    """End what still runs from `directory`: TERM, `grace_s` seconds, KILL. Returns the pids it ended."""
    found = processes_of(directory)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    _gone, alive = psutil.wait_procs(found, timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=grace_s)
    return [process.pid for process in found]


def find_leftovers(directory: Path, ports: Iterable[int]) -> list[Leftover]:
    """Processes of `directory`, ports of `ports` that still listen, temporaries below `directory`."""
    left = [
        Leftover(f"process {process.pid}: {' '.join(process.cmdline())}")
        for process in processes_of(directory)
    ]
    network = LocalNetwork()
    left += [Leftover(f"port {port} still listens") for port in ports if not network.can_listen(port)]
    for path in sorted(directory.rglob("*")):
        if path.name.startswith(".") or path.name.endswith(_PRIVATE_SUFFIXES):
            left.append(Leftover(f"temporary file {path}"))
    return left
