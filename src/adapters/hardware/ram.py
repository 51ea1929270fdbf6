"""RAM: the machine's, or less where a control group (a container, a systemd unit) limits it."""

from collections.abc import Iterator
from pathlib import Path

import psutil

from ...domain.ports.hardware import Memory
from .control_groups import kernel_text, levels, own_path

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
    for level in levels(root, own_path(sysroot, "")):
        text = kernel_text(level / "memory.max")
        if text.isdigit() and int(text):  # "max" is none
            yield int(text), _used(level, "memory.current", "inactive_file")
    for level in levels(root / "memory", own_path(sysroot, "memory")):
        text = kernel_text(level / "memory.limit_in_bytes")
        if text and 0 < int(text) < _NO_LIMIT_BYTES:
            yield int(text), _used(level, "memory.usage_in_bytes", "total_inactive_file")


def _used(level: Path, counter: str, droppable: str) -> int:
    used_bytes = int(kernel_text(level / counter) or 0)
    for line in kernel_text(level / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == droppable:
            used_bytes -= int(value)
    return max(0, used_bytes)
