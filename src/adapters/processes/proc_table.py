"""The kernel's process table as /proc shows it. Standard library only: the keeper imports it too."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROC = Path("/proc")
_TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcEntry:
    """One process: its state letter (`Z` is a zombie), parent, process group, session, and when it started
    in clock ticks since the boot.

    `cpu_s` is the processor time it and those of its children that it has waited for have used.
    """

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int
    cpu_s: float

    @property
    def running(self) -> bool:
        """Whether it is more than an entry whose parent has not asked for its end yet."""
        return self.state not in {"Z", "X"}


def readable() -> bool:
    """Whether this system has a process table to read."""
    return (PROC / "self" / "stat").exists()


def all_processes() -> Iterator[ProcEntry]:
    """Every process this user can see; those that end meanwhile are left out."""
    for pid in _all_pids():
        if (process := read_process(pid)) is not None:
            yield process


def _all_pids() -> Iterator[int]:
    with os.scandir(PROC) as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def read_process(pid: int) -> ProcEntry | None:
    """The entry of `pid`; None when there is no such process."""
    try:
        stat = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name before the last `)` may hold anything, spaces and parentheses too.
    columns = stat[stat.rindex(")") + 2 :].split()
    state, parent, group, session = columns[:4]
    cpu_s = sum(map(int, columns[_CPU_TIMES])) / _TICKS_S
    return ProcEntry(pid, state, int(parent), int(group), int(session), int(columns[_STARTED]), cpu_s)


# Columns 22 and 14 to 17 of proc_pid_stat(5), counted from the state, which is column 3.
_STARTED = 19
_CPU_TIMES = slice(11, 15)


def living(groups: Mapping[int, int]) -> set[int]:
    """Which of the process groups have a running member. Each is given with the start time of its leader, 0
    for one that is known to be gone.

    Where a leader of that number started at another time the number was given away again: that group is
    another one, and ours is gone.
    """
    found = set()
    others = set()
    for process in all_processes():
        if process.group in groups:
            if process.pid == process.group and process.started != groups[process.group]:
                others.add(process.group)
            elif process.running:
                found.add(process.group)
    return found - others


def cpu_s_of(group: int) -> float:
    """Processor time that the running members of `group` have used, in seconds; 0 where nobody tells."""
    return sum(process.cpu_s for process in all_processes() if process.group == group) if readable() else 0.0


@cache
def this_boot() -> str:
    """The run of the system, and the namespace in which process ids are counted; "" where unknown."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


MARK_VARIABLE = "LOCALAI_WORKER_LAUNCH"


def read_mark(pid: int, owner: str) -> str:
    """The mark of `owner` in the environment that process `pid` was started with; "" without one."""
    wanted = f"{MARK_VARIABLE}={owner}.".encode()
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return ""  # it ended, or belongs to somebody else
    if wanted not in environment:
        return ""
    variables = environment.split(b"\0")
    found = next((variable for variable in variables if variable.startswith(wanted)), b"")
    return found.partition(b"=")[2].decode(errors="replace")


def marked_processes(owner: str) -> list[tuple[str, ProcEntry]]:
    """Every running process with a mark of `owner`, and that mark; this process and its group left out."""
    own_group = os.getpgid(0)
    found = []
    for pid in _all_pids():
        if (mark := read_mark(pid, owner)) and (process := read_process(pid)) is not None:
            found += [(mark, process)] if process.running and process.group != own_group else []
    return found
