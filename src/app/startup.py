"""From flags and environment to a running worker, and from failures to an exit code."""

import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ..domain.errors import WorkerError
from .environment import load_environment
from .flags import Flags
from .option_values import SettingsError
from .resolve_settings import ResolvedSettings, SettingsSurvey, require_files, survey_settings
from .signature_warnings import can_verify, signature_warnings

log = logging.getLogger(__name__)


def start_worker(flags: Flags) -> int:
    """Run a worker with what `flags` and the environment say; its exit code."""

    def work() -> int:
        from .logs import set_up_logging

        resolved, environment, warnings = _resolve(flags)
        settings = resolved.settings
        warnings = (*warnings, *signature_warnings(settings, can_verify=can_verify()))
        set_up_logging(
            level=settings.log_level, line_format=settings.log_format, dedup=settings.log_dedup_logs
        )
        for warning in warnings:
            log.warning("%s", warning)
        from .run import run_worker

        return run_worker(settings, environment)

    return exit_code(work)


def survey(flags: Flags) -> tuple[SettingsSurvey, dict[str, str], list[str]]:
    """Every option as it stands here, the environment, and what was wrong with its `.env` files."""
    warnings: list[str] = []
    cwd, home = Path.cwd(), _home()
    environment = load_environment(os.environ, cwd, home, warn=warnings.append)
    found = survey_settings(
        flags, environment, cwd=cwd, home=home, hostname=socket.gethostname(), pid=os.getpid()
    )
    return found, environment, warnings


def _resolve(flags: Flags) -> tuple[ResolvedSettings, Mapping[str, str], tuple[str, ...]]:
    """Settings to run with, the whole environment, and lines for the log."""
    found, environment, warnings = survey(flags)
    try:
        resolved = found.require()
        require_files(resolved.values)
    except SettingsError:
        say_warnings(warnings)  # an unreadable file may be the reason
        raise
    return resolved, environment, (*warnings, *resolved.warnings)


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a container may run under a user id that has no entry
        return Path("/")


def say_warnings(warnings: tuple[str, ...] | list[str]) -> None:
    """One line each on stderr, for commands that have no log."""
    for warning in warnings:
        sys.stderr.write(f"localai-worker: warning: {warning}\n")


def exit_code(work: Callable[[], int]) -> int:
    """What `work` returns; foreseen failures become lines on stderr, 2 for settings, else 1."""
    code = 0
    failures: list[BaseException] = []
    try:
        code = work()
    except* SettingsError as group:
        code = 2
        failures += leaves(group)
    except* WorkerError as group:
        code = code or 1
        failures += leaves(group)
    for failure in failures:
        sys.stderr.write(f"localai-worker: {failure}\n")
    return code


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors in a group of groups, flattened."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
