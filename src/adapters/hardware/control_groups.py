"""Where this process stands among the kernel's control groups, of either version."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def own_path(sysroot: Path, controller: str) -> PurePosixPath:
    """This process' place in the hierarchy of `controller`; "" is version 2, which has one for all."""
    for line in kernel_text(sysroot / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return PurePosixPath(path)
    return PurePosixPath("/")


def levels(root: Path, own: PurePosixPath) -> Iterator[Path]:
    """The directories from `own` up to `root`; in a container the path may be one only the host knows."""
    yield root
    if ".." not in own.parts:
        below = own.relative_to("/")
        for level in (below, *below.parents):
            if level.parts:
                yield root / level


def kernel_text(path: Path) -> str:
    """The file's text without its line end; "" if there is no such file."""
    try:
        return path.read_text(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
