"""The command line: parse, resolve, run, report.

What a command needs beyond its settings is imported when it runs, so that every start is quick.
"""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from .backend_tools.command import backends
from .option_commands import OptionTableCommand, given_flags
from .resolve_settings import require_files
from .settings import Bus
from .simulator.command import simulate
from .startup import exit_code, say_warnings, start_worker, survey

_WIDE = {"max_content_width": 120}  # columns of the help, where the terminal has them

app = typer.Typer(
    help="The node agent of a LocalAI cluster.",
    add_completion=False,
    no_args_is_help=True,
    # Plain help and tracebacks: rich takes as long to import as everything else together.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(backends, name="backends")
app.add_typer(simulate, name="simulate")


@app.command(cls=OptionTableCommand, context_settings=_WIDE)
def run(context: typer.Context) -> None:
    """Run this node as a LocalAI worker until SIGINT, SIGTERM or a stop from the frontend."""
    raise typer.Exit(start_worker(given_flags(context)))


@app.command(cls=OptionTableCommand, context_settings=_WIDE)
def config(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Print every option, its effective value and where it comes from; secrets are masked."""
    from .config_report import config_json, write_config_table

    found, _, warnings = survey(given_flags(context))
    if as_json:
        typer.echo(config_json(found.values))
    else:
        write_config_table(found.values, sys.stdout)
    say_warnings((*warnings, *found.warnings))

    def check() -> int:
        if found.errors:
            raise ExceptionGroup("settings", found.errors)
        require_files(found.values)
        return 0

    raise typer.Exit(exit_code(check))


@app.command(cls=OptionTableCommand, context_settings=_WIDE)
def status(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Print how the worker of this machine is: processes and their graphics memory, deaths, worries."""

    def work() -> int:
        from rich.console import Console

        from .status_report import ask_status, status_json, write_status

        found, _, warnings = survey(given_flags(context))
        say_warnings(warnings)
        told = ask_status(found.require().settings)
        if as_json:
            typer.echo(status_json(told))
        else:
            write_status(told, Console(highlight=False))
        return 0

    raise typer.Exit(exit_code(work))


class Storage(StrEnum):
    """How the model files of the demo get to the worker."""

    HTTP = "http"
    S3 = "s3"


@app.command()
def demo(
    *,
    bus: Annotated[Bus, typer.Option(help="The message bus between frontend and worker.")] = Bus.NATS,
    storage: Annotated[Storage, typer.Option(help="How model files travel.")] = Storage.HTTP,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary directory.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds the whole demo may take.")] = 300,
) -> None:
    """Play the whole story on this machine: frontend, worker, backend, model, embeddings."""
    if bus is Bus.MEMORY and storage is Storage.S3:
        raise typer.BadParameter("s3 takes real parts: leave --bus memory out", param_hint="--storage")

    def work() -> int:
        from .demo.command import run_demo

        code: int = run_demo(bus=bus.value, keep=keep, timeout_s=timeout, storage=storage.value)
        return code

    raise typer.Exit(exit_code(work))


@app.command()
def version() -> None:
    """Print the version."""
    from .. import __version__

    typer.echo(f"localai-worker {__version__}")
