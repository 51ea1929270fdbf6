"""RAM: the machine's, or less where a control group (a container, a systemd unit) limits it."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

from ...domain.ports.hardware import Memory

_NO_LIMIT_BYTES = 0x7FFFFFFFFFFFF000  # what version 1 shows for "none"; Source: LocalAI pkg/xsysinfo


def machine_memory() -> Memory:
    """RAM of the whole machine, by psutil."""
    memory = psutil.virtual_memory()
    return Memory(memory.total, min(memory.available, memory.total))


def limited(machine: Memory, sysroot: Path) -> Memory:
    """`machine`, cut down to what the control groups above this process allow.

    Beyond LocalAI, which reads only the outermost group and ignores what it uses: every level counts, and
    what a group uses (less the file cache it could drop) is not available.
    Raises OSError or ValueError if the kernel's files are not what they should be.
    """
    total_bytes, available_bytes = machine.total_bytes, machine.available_bytes
    for limit_bytes, used_bytes in _groups(sysroot):
        total_bytes = min(total_bytes, limit_bytes)
        available_bytes = min(available_bytes, limit_bytes - used_bytes)
    return Memory(total_bytes, max(0, min(available_bytes, total_bytes)))


def _groups(sysroot: Path) -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of each group with a limit that this process is in."""
    root = sysroot / "sys/fs/cgroup"
    for level in _levels(root, _own_path(sysroot, "")):
        text = _text(level / "memory.max")
        if text.isdigit() and int(text):  # "max" is none
            yield int(text), _used(level, "memory.current", "inactive_file")
    for level in _levels(root / "memory", _own_path(sysroot, "memory")):
        text = _text(level / "memory.limit_in_bytes")
        if text and 0 < int(text) < _NO_LIMIT_BYTES:
            yield int(text), _used(level, "memory.usage_in_bytes", "total_inactive_file")


def _own_path(sysroot: Path, controller: str) -> PurePosixPath:
    """This process' place in the hierarchy of `controller`; "" is version 2, which has one for all."""
    for line in _text(sysroot / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return PurePosixPath(path)
    return PurePosixPath("/")


def _levels(root: Path, own: PurePosixPath) -> Iterator[Path]:
    """The directories from `own` up to `root`; in a container the path may be one only the host knows."""
    yield root
    if ".." not in own.parts:
        below = own.relative_to("/")
        for level in (below, *below.parents):
            if level.parts:
                yield root / level


def _used(level: Path, counter: str, droppable: str) -> int:
    used_bytes = int(_text(level / counter) or 0)
    for line in _text(level / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == droppable:
            used_bytes -= int(value)
    return max(0, used_bytes)


def _text(path: Path) -> str:
    """The file's text without its line end; "" if there is no such file."""
    try:
        return path.read_text(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
