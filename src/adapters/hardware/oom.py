"""How often the kernel killed for lack of memory: its control group's own count, else the machine's."""

from dataclasses import dataclass
from pathlib import Path

from .control_groups import kernel_text, levels, own_path


@dataclass(frozen=True)
class KernelOomKills:
    """`OomKills` from sysfs and procfs below `sysroot`.

    Both versions of control groups count the kills of processes inside; so does the machine as a whole,
    in /proc/vmstat, but also those in containers that are not ours.
    """

    sysroot: Path = Path("/")

    def count(self) -> int | None:
        root = self.sysroot / "sys/fs/cgroup"
        own = (
            *((level / "memory.events") for level in levels(root, own_path(self.sysroot, ""))),
            *(
                (level / "memory.oom_control")
                for level in levels(root / "memory", own_path(self.sysroot, "memory"))
            ),
        )
        counts = [count for place in own if (count := _count(place)) is not None]
        return max(counts) if counts else _count(self.sysroot / "proc/vmstat")


def _count(place: Path) -> int | None:
    """The value behind `oom_kill` in a file of names and numbers; None where there is none."""
    try:
        lines = kernel_text(place).splitlines()
    except OSError:  # not ours to read
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return None
