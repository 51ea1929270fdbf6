"""What lies in a state directory for the worker's lock and its keeper. Standard library only."""

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCK_FILE = "worker.lock"
OWNER_FILE = "owner"
KEEPER_FILE = "keeper.pid"
KEEPER_LOG = "keeper.log"
JOURNAL = "processes"

DEFAULT_WINDOW_S = 120.0
DEFAULT_GRACE_S = 15.0
_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True)
class LockNote:
    """What the worker that holds the lock wrote into its file, for whoever finds it."""

    pid: int = 0
    window_s: float = DEFAULT_WINDOW_S
    grace_s: float = DEFAULT_GRACE_S


def write_note(descriptor: int, note: LockNote) -> None:
    """Write `note` into the lock file in place: another file would be another lock."""
    content = json.dumps(note.__dict__).encode()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content, 0)


def read_note(directory: Path) -> LockNote:
    """The note in the lock file; defaults where it cannot be read."""
    fields = read_json(directory / LOCK_FILE)
    try:
        return LockNote(int(fields["pid"]), float(fields["window_s"]), float(fields["grace_s"]))
    except (KeyError, TypeError, ValueError):
        return LockNote()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a small file; empty where there is none."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LIMIT_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock on an open lock file if nobody has it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
