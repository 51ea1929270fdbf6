"""Small real backends: directories with a run.sh, written where an install would put them.

The healthy ones serve gRPC with this environment's Python; their workers need `PYTHON` in the environment.
"""

from pathlib import Path

from tests.tiny_server import TINY_SERVER

_SERVE = 'exec "${PYTHON:?}" -S -E "${0%/*}/server.py"'


def shell(backends: Path, name: str, script: str, *, mode: int = 0o755) -> Path:
    """A backend whose run.sh is `script`; returns its directory."""
    directory = backends / name
    directory.mkdir(parents=True)
    run_file = directory / "run.sh"
    run_file.write_text(f"#!/bin/sh\n{script}\n")
    run_file.chmod(mode)
    return directory


def healthy(backends: Path, name: str, *, before: str = "", health: str = "OK", mode: int = 0o755) -> Path:
    """Runs the shell lines `before` in its directory, then serves; `health` is what it says of itself."""
    directory = shell(backends, name, f'cd "${{0%/*}}"\n{before}\n{_SERVE} {health} "$@"', mode=mode)
    (directory / "server.py").write_text(TINY_SERVER)
    return directory


def dying(backends: Path, name: str, *, lines: int = 30, last_bytes: int = 0) -> Path:
    """Prints `line 1` to `line <lines>` on stderr, a last line of `last_bytes`, and ends with code 3."""
    last = f'head -c {last_bytes} /dev/zero | tr "\\0" x >&2\n' if last_bytes else ""
    return shell(backends, name, f'for n in $(seq {lines}); do echo "line $n" >&2; done\n{last}exit 3')


def silent(backends: Path, name: str) -> Path:
    """Lives, and never listens."""
    return shell(backends, name, "exec sleep 600")


def stubborn(backends: Path, name: str) -> Path:
    """Serves, ignores TERM, and has a child that ignores it too; `child.pid` is the child's."""
    return healthy(backends, name, before="trap '' TERM\nsleep 600 &\necho $! > child.pid")


def escaping(backends: Path, name: str) -> Path:
    """Serves, and has a child that ignores TERM in a session of its own; `child.pid` is the child's."""
    child = "trap '' TERM; echo $$ > child.pid; exec sleep 600"
    return healthy(backends, name, before=f'setsid sh -c "{child}" &')
