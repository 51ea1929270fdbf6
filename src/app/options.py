"""What an option of the worker is; `option_table` lists them.

Everything that names an option reads that one table: the command line, the environment, `config` and the
masking of secrets.
"""

from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import Literal


class Kind(StrEnum):
    """How the text of an option is read; the value is what the help shows in its place."""

    TEXT = "TEXT"
    SWITCH = "true|false"
    NUMBER = "NUMBER"
    DURATION = "DURATION"
    SIZE = "SIZE"
    PATH = "DIRECTORY"
    FILE = "FILE"
    LIST = "A,B"
    LABELS = "KEY=VALUE,..."
    GALLERIES = "JSON"
    URL = "URL"
    ADDRESS = "HOST:PORT"
    CHOICE = "NAME"


# An empty variable cannot be a value of these. Compose files produce them for every variable that is not
# set outside, so they count as unset, with a warning (N-B35; upstream refuses to start).
NEVER_EMPTY = frozenset({Kind.SWITCH, Kind.NUMBER, Kind.DURATION, Kind.SIZE, Kind.FILE, Kind.CHOICE})


@dataclass(frozen=True, slots=True)
class Option:
    """One option; its flag is the dashed `field`, which also names it in `Settings` and in flag mappings.

    `env`: the variables that set it; the first that is set wins. `default`: in the form the flag takes.
    `since`: `seed` and `newer` are the LocalAI versions of the protocol sheets, `ours` is not LocalAI's.
    `secret`: never shown. `negatable`: `--no-x` turns a switch off.
    """

    field: str
    env: tuple[str, ...]
    _: KW_ONLY
    help: str
    since: Literal["seed", "newer", "ours"] = "seed"
    kind: Kind = Kind.TEXT
    default: str = ""
    choices: tuple[str, ...] = ()
    other_flags: tuple[str, ...] = ()
    secret: bool = False
    required: bool = False
    negatable: bool = False

    @property
    def name(self) -> str:
        """The flag without its dashes."""
        return self.field.replace("_", "-")

    @property
    def flags(self) -> tuple[str, ...]:
        """Every spelling of the flag, the documented one first."""
        return (f"--{self.name}", *self.other_flags)
