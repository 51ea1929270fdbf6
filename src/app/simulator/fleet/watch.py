"""Looks on as a worker uses its ports: writes the history and asks the rules."""

import zlib
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

from ....adapters.memory.machine import FakeProcess
from ....domain.ports.filesystem import RootedPath
from .history import History
from .invariants import Invariants
from .life import Life

_SHOWN = 120
# After these the worker's belief and the machine are compared at once.
_TELLING = frozenset({("processes", "spawn"), ("process", "signal_group"), ("bus", "publish")})
# After these a file of the object cache can be seen.
_CACHED = frozenset({("assembled", "publish"), ("ranged_files", "put_whole")})


@dataclass(eq=False)
class LifeWatch:
    """The `Watch` of one life; `look` asks for a comparison as soon as this step is over."""

    life: Life
    history: History
    rules: Invariants
    look: Any

    def called(self, role: str, name: str, args: tuple[Any, ...]) -> None:
        self.history.add(self.life.host.name, f"{role}.{name} {_shown(args)}")
        if role == "bus" and name == "publish":
            self.rules.replies.published(self.life, args[0], args[1])

    def returned(self, role: str, name: str, args: tuple[Any, ...], result: Any) -> None:
        host = self.life.host
        if isinstance(result, FakeProcess):
            self.rules.machines.spawned(host, result)
        elif role == "filesystem" and name == "replace_directory":
            self.rules.machines.appeared(host, args[1])
        elif role == "filesystem" and name == "write":
            self.rules.machines.appeared(host, args[0])
        elif role == "incoming" and name == "publish":
            self.rules.machines.models(host)
        elif (role, name) in _CACHED:
            self.rules.objects.look(host)
        elif role == "frontend" and name == "register":
            self.rules.replies.forgotten(host)
        if (role, name) in _TELLING:
            self.look(self.life)

    def failed(self, role: str, name: str, args: tuple[Any, ...], error: Exception) -> None:
        del args
        self.history.add(self.life.host.name, f"{role}.{name} failed: {type(error).__name__}")


def _shown(args: tuple[Any, ...]) -> str:
    """The arguments without anything that differs from process to process, such as an address in memory."""
    return " ".join(_text(arg) for arg in args)[:_SHOWN]


def _text(arg: Any) -> str:
    if isinstance(arg, bytes | bytearray | memoryview):
        return f"{len(arg)} bytes {zlib.crc32(arg):08x}"
    if isinstance(arg, Enum):
        return arg.name
    if isinstance(arg, RootedPath):
        return str(arg.path)
    if isinstance(arg, str | int | float | PurePath):
        return str(arg)
    return type(arg).__name__
