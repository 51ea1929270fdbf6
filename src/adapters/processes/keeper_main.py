"""The keeper: ends the backends of a dead worker unless another one takes over in time.

`python -m localai_worker.adapters.processes.keeper_main STATE_DIRECTORY`. Standard library only, so that it
is small and starts at once. It looks at the lock twice a second and leaves when a newer keeper is on duty,
or when no worker lives and nothing is left to be kept.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .proc_table import living, marked_processes, read_process, this_boot
from .state_files import JOURNAL, KEEPER_FILE, LOCK_FILE, OWNER_FILE, LockNote, read_json, read_note, try_lock

_POLL_S = 0.5
_GONE_POLL_S = 0.05
_KILL_S = 5.0


@dataclass
class Keeper:
    """One keeper of `directory`; `note` is what its latest worker wrote, `worker_started` when that began."""

    directory: Path
    owner: str
    note: LockNote = field(default_factory=LockNote)
    worker_started: int = 0

    def run(self) -> None:
        """Watch until the duty ends."""
        self._take_duty()
        free_since_s: float | None = None
        while self._on_duty():
            if self._worker_lives():
                free_since_s = None
            elif not self._left_behind():
                return
            else:
                now_s = time.monotonic()
                if free_since_s is None:
                    free_since_s = now_s
                    say(f"the worker is gone: its backends end in {self.note.window_s:g} s unless one comes")
                if now_s - free_since_s >= self.note.window_s and self._end_all():
                    return
            time.sleep(_POLL_S)

    def _take_duty(self) -> None:
        mine = self.directory / f".{KEEPER_FILE}.{os.getpid()}.incoming"
        with suppress(OSError):  # a full disk: an older keeper goes on beside this one, which does no harm
            mine.write_text(str(os.getpid()))
            mine.replace(self.directory / KEEPER_FILE)

    def _on_duty(self) -> bool:
        try:
            return (self.directory / KEEPER_FILE).read_text() == str(os.getpid())
        except (OSError, ValueError):
            return True  # nobody else can be, and somebody must

    def _worker_lives(self) -> bool:
        try:
            descriptor = os.open(self.directory / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # Somebody removed the directory. None can come back to it, but its last worker may live.
            entry = read_process(self.note.pid)
            return entry is not None and entry.running and entry.started == self.worker_started
        try:
            free = try_lock(descriptor, shared=True)
        finally:
            os.close(descriptor)
        note = read_note(self.directory)
        if note.pid and note != self.note:
            entry = read_process(note.pid)
            self.note, self.worker_started = note, entry.started if entry else 0
        return not free

    def _left_behind(self) -> dict[int, int]:
        """The groups that are provably ours and live: start time of the leader (0: it is gone) by id."""
        journaled = {}
        for record in self._records():
            pid, started = record.get("pid"), record.get("started")
            if not isinstance(pid, int) or not isinstance(started, int) or record.get("boot") != this_boot():
                continue
            entry = read_process(pid)
            if entry is not None and entry.started == started:
                journaled[pid] = started
        groups = {pid: journaled[pid] for pid in living(journaled)}
        for _, process in marked_processes(self.owner):
            leader = read_process(process.group)
            groups.setdefault(process.group, leader.started if leader else 0)
        return groups

    def _records(self) -> list[dict[str, object]]:
        try:
            return [read_json(path) for path in sorted((self.directory / JOURNAL).glob("*.json"))]
        except OSError:
            return []

    def _end_all(self) -> bool:
        """End what is left, holding the lock so that no worker adopts meanwhile; False if one was quicker."""
        try:
            descriptor = os.open(self.directory / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            descriptor = None
        try:
            if descriptor is not None and not try_lock(descriptor):
                return False
            groups = self._left_behind()
            say(f"no worker came back: ending process groups {sorted(groups)}")
            _signal(groups, signal.SIGTERM)
            if not _gone(groups, self.note.grace_s):
                _signal(groups, signal.SIGKILL)
            if not _gone(groups, _KILL_S):
                say(f"still there after SIGKILL: {sorted(living(groups))}")
            self._forget(groups)
            return True
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _forget(self, groups: dict[int, int]) -> None:
        for pid in groups.keys() - living(groups):
            with suppress(OSError):
                (self.directory / JOURNAL / f"{pid}.json").unlink(missing_ok=True)


def _signal(groups: dict[int, int], number: signal.Signals) -> None:
    for group in living(groups):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            continue
        except PermissionError:
            say(f"may not signal process group {group}: it runs as another user")


def _gone(groups: dict[int, int], limit_s: float) -> bool:
    ends_s = time.monotonic() + limit_s
    while living(groups):
        if time.monotonic() >= ends_s:
            return False
        time.sleep(_GONE_POLL_S)
    return True


def say(text: str) -> None:
    """One dated line on stderr, which is the keeper's log."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} keeper {os.getpid()}: {text}\n")
    sys.stderr.flush()


def main() -> None:
    """Keep the state directory that is named on the command line."""
    directory = Path(sys.argv[1])
    try:
        owner = (directory / OWNER_FILE).read_text().strip()
    except (OSError, ValueError) as error:
        say(f"cannot tell whose processes these are: {error}")
        sys.exit(1)
    Keeper(directory, owner).run()


if __name__ == "__main__":
    main()
