"""Open and mapped files, from /proc. Where there is none (macOS) nothing is known to be open."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from anyio import to_thread

_MAPPED = re.compile(rb"^\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ([1-9]\d*) ", re.MULTILINE)


class LocalOpenFiles:
    """`OpenFiles` of this machine; files go by device and inode, whatever path a process opened them by."""

    async def among(self, paths: frozenset[Path]) -> frozenset[Path]:
        return await to_thread.run_sync(_open_among, paths)


def _open_among(paths: frozenset[Path]) -> frozenset[Path]:
    wanted: dict[tuple[int, int], list[Path]] = {}
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            wanted.setdefault((status.st_dev, status.st_ino), []).append(path)
    found: set[Path] = set()
    for process in _processes():
        for identity in (*_opened(process), *_mapped(process)):
            found.update(wanted.get(identity, ()))
    return frozenset(found)


def _processes() -> Iterator[Path]:
    with suppress(OSError):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                yield entry


def _opened(process: Path) -> Iterator[tuple[int, int]]:
    with suppress(OSError):  # another user's, or gone
        for descriptor in os.scandir(process / "fd"):
            with suppress(OSError):
                status = descriptor.stat()
                yield status.st_dev, status.st_ino


def _mapped(process: Path) -> Iterator[tuple[int, int]]:
    with suppress(OSError):
        for major, minor, inode in _MAPPED.findall((process / "maps").read_bytes()):
            yield os.makedev(int(major, 16), int(minor, 16)), int(inode)
