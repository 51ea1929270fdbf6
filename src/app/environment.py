"""The environment of the worker: the process's own and what `.env` files add to it."""

import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

log = logging.getLogger(__name__)


def load_environment(
    base: Mapping[str, str],
    cwd: Path,
    home: Path,
    *,
    system: Path = Path("/etc"),
    warn: Callable[[str], None] = log.warning,
) -> dict[str, str]:
    """`base` and the variables of the `.env` files that exist, first come first served.

    Read in this order: `.env` and `localai.env` in `cwd`, `localai.env` in `home` and in its `.config`,
    `localai.env` in `system`. A variable that is set already is never replaced. `${NAME}` in a value is
    the variable read so far. What cannot be read goes to `warn`, one line each, and is left out.
    Source: LocalAI cmd/local-ai/main.go.
    """
    environment = dict(base)
    for path in (
        cwd / ".env",
        cwd / "localai.env",
        home / "localai.env",
        home / ".config" / "localai.env",
        system / "localai.env",
    ):
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue  # `.env` is often the directory of a virtual environment
        except (OSError, UnicodeDecodeError) as error:
            warn(f"{path} is left out, it cannot be read: {error}")
            continue
        _add(environment, text, path, warn)
    return environment


def _add(environment: dict[str, str], text: str, path: Path, warn: Callable[[str], None]) -> None:
    from dotenv.parser import parse_stream  # here: most workers have no such file
    from dotenv.variables import parse_variables

    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            warn(f"{path} line {binding.original.line} is left out, it is not NAME=value")
        if binding.key and binding.value is not None:
            value = "".join(part.resolve(environment) for part in parse_variables(binding.value))
            environment.setdefault(binding.key, value)
