"""A fence around one life of a worker: everything it does to the world outside passes through it.

When the worker is killed the fence goes down: calls raise from then on, before they do anything. So what its
code does as it is cancelled (`finally` blocks, shielded clean-ups) has no effect, as after a real SIGKILL.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from typing import Any, Protocol, TypeVar, cast

from ....adapters.memory.bus import InMemorySubscription
from ....adapters.memory.file_transfers import InMemoryIncomingFile, InMemoryOutgoingFile, InMemoryPartialFile
from ....adapters.memory.machine import FakeProcess
from ....adapters.memory.object_store import InMemoryStoredObject
from ....adapters.memory.processes import FoundFakeProcess
from ....adapters.memory.ranged_files import InMemoryAssembledFile, InMemorySourceFile, InMemoryWholeFile
from ....domain.ports.processes import MarkedGroup

Port = TypeVar("Port")

# Results that reach the outside themselves, and the roles they play.
_ROLES: dict[type, str] = {
    FakeProcess: "process",
    FoundFakeProcess: "process",
    InMemoryIncomingFile: "incoming",
    InMemoryPartialFile: "incoming",
    InMemoryOutgoingFile: "outgoing",
    InMemoryStoredObject: "stored",
    InMemoryAssembledFile: "assembled",
    InMemoryWholeFile: "whole",
    InMemorySourceFile: "source",
}
# Calls without an effect, most of them polled or part of every heartbeat: not worth a line in the history.
_QUIET = frozenset(
    {
        ("hardware", "read"),
        ("filesystem", "space"),
        ("filesystem", "stat"),
        ("frontend", "heartbeat"),
        ("frontend", "loaded_models"),
        ("network", "connections"),
        ("process", "group_alive"),
        ("process", "listening"),
        ("processes", "tail"),
        ("clock", "now"),
    }
)


class Fenced(asyncio.CancelledError):
    """The process that makes this call is dead."""

    def __init__(self) -> None:
        super().__init__("Cancelled via cancel scope: the worker was killed")  # as anyio tells its own


class Watch(Protocol):
    """Who looks on."""

    def called(self, role: str, name: str, args: tuple[Any, ...]) -> None:
        """A call is about to be made."""

    def returned(self, role: str, name: str, args: tuple[Any, ...], result: Any) -> None:
        """It returned `result`."""

    def failed(self, role: str, name: str, args: tuple[Any, ...], error: Exception) -> None:
        """It raised `error`."""


@dataclass(eq=False)
class Fence:
    """One life of a worker, seen from its ports."""

    watch: Watch
    kill: Callable[[], None]
    down: bool = False
    _crossings_left: int | None = None
    _armed: bool = field(default=False)

    def kill_after(self, crossings: int) -> None:
        """Kill the worker at the `crossings`th time from now that a call is made or returns."""
        self._crossings_left, self._armed = crossings, True

    def lower(self) -> None:
        """Let nothing pass any more."""
        self.down = self._armed = True

    def guard(self, port: Port, role: str) -> Port:
        """`port` as the worker sees it; one that is behind a fence already stays as it is."""
        return port if isinstance(port, _Guarded) else cast(Port, _Guarded(port, role, self))

    def cross(self) -> None:
        """Pass, if the worker lives; where it is to die here, it does."""
        if self.down:
            raise Fenced
        if self._crossings_left is not None:
            self._crossings_left -= 1
            if self._crossings_left <= 0:
                self._crossings_left = None
                self.kill()
                raise Fenced

    def _wrapped(self, result: Any) -> Any:
        if type(result) is tuple and result and isinstance(result[0], MarkedGroup):
            return tuple(MarkedGroup(each.mark, self.guard(each.process, "process")) for each in result)
        if isinstance(result, InMemorySubscription):
            return _GuardedSubscription(result, self)
        role = _ROLES.get(type(result))
        return result if role is None else _Guarded(result, role, self)

    def asynchronous(self, role: str, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method`, a coroutine function, behind the fence."""

        async def armed(*args: Any, **options: Any) -> Any:
            self.cross()
            result = await method(*args, **options)
            self.cross()
            return result

        def quiet(*args: Any, **options: Any) -> Any:
            # Most calls of a fleet come through here. One that the kill overtakes returns to code whose next
            # call is stopped.
            return armed(*args, **options) if self._armed else method(*args, **options)

        async def watched(*args: Any, **options: Any) -> Any:
            if self._armed:
                self.cross()
            self.watch.called(role, name, args)
            try:
                result = await method(*args, **options)
            except Exception as error:
                if self._armed:
                    self.cross()
                self.watch.failed(role, name, args, error)
                raise
            if self._armed:
                self.cross()
            self.watch.returned(role, name, args, result)
            return self._wrapped(result)

        return quiet if (role, name) in _QUIET else watched

    def immediate(self, role: str, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method`, an ordinary one, behind the fence."""

        def quiet(*args: Any, **options: Any) -> Any:
            if self._armed:
                self.cross()
            return method(*args, **options)

        def watched(*args: Any, **options: Any) -> Any:
            if self._armed:
                self.cross()
            self.watch.called(role, name, args)
            result = method(*args, **options)
            self.watch.returned(role, name, args, result)
            return self._wrapped(result)

        return quiet if (role, name) in _QUIET else watched

    async def stream(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """`chunks` behind the fence."""
        async for chunk in chunks:
            if self._armed:
                self.cross()
            yield chunk


class _Kind(Enum):
    """What an attribute of a port is."""

    COROUTINE = auto()
    STREAM = auto()
    METHOD = auto()
    VALUE = auto()  # a property may differ the next time


@cache
def _kind_of(port: type, name: str) -> _Kind:
    value = getattr(port, name, None)
    if inspect.iscoroutinefunction(value):
        return _Kind.COROUTINE
    if inspect.isasyncgenfunction(value):
        return _Kind.STREAM
    return _Kind.METHOD if inspect.isfunction(value) else _Kind.VALUE


def behind(port: Port) -> Port:
    """What is behind the fence, for those who look at a worker without being it."""
    return cast(Port, port._port) if isinstance(port, _Guarded) else port  # noqa: SLF001


class _GuardedSubscription:
    """A `Subscription` behind the fence; there are ten for every worker, so it is small."""

    __slots__ = ("_fence", "_port")

    def __init__(self, port: InMemorySubscription, fence: Fence) -> None:
        self._port = port
        self._fence = fence

    def __aiter__(self) -> "_GuardedSubscription":
        return self

    async def __anext__(self) -> Any:
        self._fence.cross()
        message = await self._port.__anext__()
        self._fence.cross()
        return message

    async def unsubscribe(self) -> None:
        self._fence.cross()
        await self._port.unsubscribe()


class _Guarded:
    """Stands in front of a port: methods pass the fence, everything else is the port's own."""

    def __init__(self, port: Any, role: str, fence: Fence) -> None:
        own = self.__dict__
        own["_port"], own["_role"], own["_fence"] = port, role, fence

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        kind = _kind_of(cast(Any, type(self._port)), name)
        if kind is _Kind.COROUTINE:
            value = self._fence.asynchronous(self._role, name, value)
        elif kind is _Kind.STREAM:
            chunks, fence = value, self._fence
            value = lambda *args: fence.stream(chunks(*args))  # noqa: E731
        elif kind is _Kind.METHOD:
            value = self._fence.immediate(self._role, name, value)
        else:
            return value
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._port, name, value)
