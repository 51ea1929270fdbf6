"""Processes that an earlier worker started, found again and watched although they are not our children."""

import asyncio
import os
import select
from contextlib import suppress
from dataclasses import dataclass, field

from anyio import to_thread

from ...domain.ports.processes import Listening, MarkedGroup, ProcessExit, ProcessIdentity, StopSignal, Work
from .listeners import who_listens
from .proc_table import cpu_s_of, living, marked_processes, read_process, this_boot
from .signals import SIGNALS


@dataclass
class FoundProcess:
    """A process that is not our child: its end is seen through a pidfd, how it ended nobody tells.

    The descriptor stands for this very process, so a number that was given away again is never watched,
    and a group is signalled only while it is provably the one that was found (N-B37).
    """

    pid: int
    leader_started: int  # 0: it is gone, and no process has this start time
    _descriptor: int | None
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().add_reader(self._descriptor, self._close)

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(self.pid, self.leader_started, this_boot())

    @property
    def exit(self) -> ProcessExit | None:
        if self._descriptor is not None and _is_readable(self._descriptor):
            self._close()
        return ProcessExit() if self._descriptor is None else None

    async def wait(self) -> ProcessExit:
        while (ended := self.exit) is None:
            await self._ended.wait()
        return ended

    def signal_group(self, signal: StopSignal) -> None:
        if self.group_alive():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, SIGNALS[signal])

    def group_alive(self) -> bool:
        if self.exit is None:
            return True
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # a member changed its user
            pass
        return bool(living({self.pid: self.leader_started}))

    async def listening(self, port: int) -> Listening:
        return await who_listens(port, self.pid)

    async def work(self) -> Work:
        """Its output files are not known here; it was up before, so nobody waits for signs of work."""
        return Work(cpu_s=await to_thread.run_sync(cpu_s_of, self.pid))

    def _close(self) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
            self._ended.set()


def find_process(identity: ProcessIdentity) -> FoundProcess | None:
    """The living process of `identity`; None when it has ended or this system cannot prove it."""
    if not this_boot() or identity.boot != this_boot():
        return None
    try:
        descriptor = os.pidfd_open(identity.pid)
    except (AttributeError, OSError, OverflowError):
        return None
    # The descriptor first: the number cannot change hands any more between the look and the watch.
    entry = read_process(identity.pid)
    if entry is None or entry.started != identity.started or not entry.running:
        os.close(descriptor)
        return None
    return FoundProcess(identity.pid, identity.started, descriptor)


async def marked_groups(owner: str) -> tuple[MarkedGroup, ...]:
    """The groups of all processes that carry a mark of `owner`."""
    if not this_boot():
        return ()
    found = await to_thread.run_sync(marked_processes, owner)
    groups = dict.fromkeys((mark, process.group) for mark, process in found)
    return tuple(MarkedGroup(mark, _leader_of(group)) for mark, group in groups)


def _leader_of(group: int) -> FoundProcess:
    entry = read_process(group)
    started = entry.started if entry else 0
    return find_process(ProcessIdentity(group, started, this_boot())) or FoundProcess(group, started, None)


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
