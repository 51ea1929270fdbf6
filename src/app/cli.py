"""The command line: parse, resolve, run, report.

What a command needs beyond its settings is imported when it runs, so that every start is quick.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ..domain.errors import WorkerError
from .environment import load_environment
from .option_commands import Flags, OptionTableCommand, given_flags
from .option_values import SettingsError
from .resolve_settings import ResolvedSettings, SettingsSurvey, require_files, survey_settings
from .settings import Bus

log = logging.getLogger(__name__)

_WIDE = {"max_content_width": 120}  # columns of the help, where the terminal has them

app = typer.Typer(
    help="The node agent of a LocalAI cluster.",
    add_completion=False,
    no_args_is_help=True,
    # Plain help and tracebacks: rich takes as long to import as everything else together.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The `localai-worker` command."""
    app(prog_name="localai-worker")


@app.command(cls=OptionTableCommand, context_settings=_WIDE)
def run(context: typer.Context) -> None:
    """Run this node as a LocalAI worker until SIGINT, SIGTERM or a stop from the frontend."""

    def work() -> int:
        from .logs import set_up_logging

        resolved, environment, warnings = _resolve(given_flags(context))
        settings = resolved.settings
        set_up_logging(
            level=settings.log_level, line_format=settings.log_format, dedup=settings.log_dedup_logs
        )
        for warning in warnings:
            log.warning("%s", warning)
        from .run import run_worker

        code: int = run_worker(settings, environment)
        return code

    _exit_after(work)


@app.command(cls=OptionTableCommand, context_settings=_WIDE)
def config(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Print every option, its effective value and where it comes from; secrets are masked."""
    from .config_report import config_json, write_config_table

    survey, _, warnings = _survey(given_flags(context))
    if as_json:
        typer.echo(config_json(survey.values))
    else:
        write_config_table(survey.values, sys.stdout)
    _say_warnings((*warnings, *survey.warnings))

    def check() -> int:
        if survey.errors:
            raise ExceptionGroup("settings", survey.errors)
        require_files(survey.values)
        return 0

    _exit_after(check)


@app.command()
def demo(
    *,
    bus: Annotated[Bus, typer.Option(help="The message bus between frontend and worker.")] = Bus.NATS,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary directory.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds the whole demo may take.")] = 300,
) -> None:
    """Play the whole story on this machine: frontend, worker, backend, model, embeddings."""

    def work() -> int:
        from .demo.command import run_demo  # type: ignore[import-not-found]  # comes with the demo

        code: int = run_demo(bus=bus.value, keep=keep, timeout_s=timeout)
        return code

    _exit_after(work)


@app.command()
def version() -> None:
    """Print the version."""
    from .. import __version__

    typer.echo(f"localai-worker {__version__}")


def _survey(flags: Flags) -> tuple[SettingsSurvey, dict[str, str], list[str]]:
    """Every option as it stands here, the environment, and what was wrong with its `.env` files."""
    warnings: list[str] = []
    cwd, home = Path.cwd(), _home()
    environment = load_environment(os.environ, cwd, home, warn=warnings.append)
    survey = survey_settings(
        flags, environment, cwd=cwd, home=home, hostname=socket.gethostname(), pid=os.getpid()
    )
    return survey, environment, warnings


def _resolve(flags: Flags) -> tuple[ResolvedSettings, Mapping[str, str], tuple[str, ...]]:
    """Settings to run with, the whole environment, and lines for the log."""
    survey, environment, warnings = _survey(flags)
    try:
        resolved = survey.require()
        require_files(resolved.values)
    except SettingsError:
        _say_warnings(warnings)  # an unreadable file may be the reason
        raise
    return resolved, environment, (*warnings, *resolved.warnings)


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a container may run under a user id that has no entry
        return Path("/")


def _say_warnings(warnings: tuple[str, ...] | list[str]) -> None:
    for warning in warnings:
        typer.echo(f"localai-worker: warning: {warning}", err=True)


def _exit_after(work: Callable[[], int]) -> NoReturn:
    """Exit with what `work` returns; foreseen failures become lines on stderr, 2 for settings, else 1."""
    code = 0
    failures: list[BaseException] = []
    try:
        code = work()
    except* SettingsError as group:
        code = 2
        failures += _leaves(group)
    except* WorkerError as group:
        code = code or 1
        failures += _leaves(group)
    for failure in failures:
        typer.echo(f"localai-worker: {failure}", err=True)
    raise typer.Exit(code)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
