"""The kernel's process table as /proc shows it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcEntry:
    """One process: its state letter (`Z` is a zombie), parent, process group and session.

    `cpu_s` is the processor time it and those of its children that it has waited for have used.
    """

    pid: int
    state: str
    parent: int
    group: int
    session: int
    cpu_s: float


def readable() -> bool:
    """Whether this system has a process table to read."""
    return (PROC / "self" / "stat").exists()


def all_processes() -> Iterator[ProcEntry]:
    """Every process this user can see; those that end meanwhile are left out."""
    with os.scandir(PROC) as entries:
        for entry in entries:
            if not entry.name.isdigit():
                continue
            try:
                stat = Path(entry.path, "stat").read_text(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            # The command name before the last `)` may hold anything, spaces and parentheses too.
            state, parent, group, session, *rest = stat[stat.rindex(")") + 2 :].split(maxsplit=15)
            cpu_s = sum(map(int, rest[7:11])) / _TICKS_S
            yield ProcEntry(int(entry.name), state, int(parent), int(group), int(session), cpu_s)
