"""What each process holds of a graphics device's memory, by the kernel's DRM client counters (fdinfo)."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

# `local0` and `vram0` are the device's own memory; `stolen` and `system` are RAM.
_HELD = re.compile(r"drm-total-(?:local|vram)\w*:\s*(\d+)\s*(KiB|MiB)?\s*$")
_UNITS = {None: 1, "KiB": 1024, "MiB": 1024**2}


def used_by_device(sysroot: Path) -> Mapping[str, int]:
    """Bytes in use by PCI address, summed over all processes that may be looked at."""
    used = defaultdict[str, int](int)
    for _, device, held in _clients(sysroot):
        used[device] += held
    return used


def used_by_process(sysroot: Path) -> Mapping[int, int]:
    """Bytes in use by process id, summed over all devices."""
    used = defaultdict[int, int](int)
    for pid, _, held in _clients(sysroot):
        used[pid] += held
    return used


def _clients(sysroot: Path) -> Iterator[tuple[int, str, int]]:
    """Process id, PCI address and bytes of each client; one that several descriptors share counts once."""
    seen: set[tuple[str, str]] = set()
    for process in (sysroot / "proc").glob("[0-9]*"):
        for descriptor in _render_nodes(process):
            counters = _text(process / "fdinfo" / descriptor)
            device = _value(counters, "drm-pdev").lower()
            client = (device, _value(counters, "drm-client-id") or f"{process.name}/{descriptor}")
            if not device or client in seen:
                continue
            seen.add(client)
            held = 0
            for line in counters.splitlines():
                if found := _HELD.match(line):
                    held += int(found[1]) * _UNITS[found[2]]
            yield int(process.name), device, held


def _render_nodes(process: Path) -> Iterator[str]:
    try:
        for descriptor in (process / "fd").iterdir():
            if str(descriptor.readlink()).startswith("/dev/dri/render"):
                yield descriptor.name
    except OSError:
        return  # it ended, or is not ours to look at


def _value(text: str, key: str) -> str:
    found = re.search(rf"^{key}:\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
