"""Who runs from a backend's directory: processes that a worker on this node started."""

from collections.abc import Iterable
from pathlib import Path


def occupants(directories: Iterable[Path]) -> list[int]:
    """The ids of the processes whose working directory lies in one of `directories`, as far as we may see."""
    import psutil  # late: only these commands look

    places = [directory.resolve() for directory in directories]
    found = []
    for process in psutil.process_iter(["pid", "cwd"]):
        cwd = process.info["cwd"]
        if cwd and any(Path(cwd).is_relative_to(place) for place in places):
            found.append(process.info["pid"])
    return found
