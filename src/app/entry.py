"""The `localai-worker` command."""

import sys

from .flags import MissingValue, take_flags
from .option_table import OPTIONS
from .startup import start_worker

_PROGRAM = "localai-worker"


def main() -> None:
    """Do what the command line says and exit.

    A plain `run` goes straight to the worker: typer, which reads everything else, and what it brings
    would double the time until the worker answers, and stay in its memory.
    """
    if sys.argv[1:2] == ["run"]:
        try:
            flags, rest = take_flags(sys.argv[2:], OPTIONS)
        except MissingValue:
            rest = sys.argv[2:]  # typer words the complaint
        if not rest:
            sys.exit(start_worker(flags))
    from .cli import app

    app(prog_name=_PROGRAM)
