"""Where each option got its text from, and that text as a typed value."""

import os.path
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from ..domain.errors import WorkerError
from ..domain.galleries import Gallery, GalleryListUnreadable, parse_galleries
from ..domain.masking import MASK, mask_url, mask_url_value, one_line
from .go_values import WrongValue, parse_bool, parse_duration_s, parse_int
from .option_table import OPTIONS
from .options import NEVER_EMPTY, Kind, Option
from .sizes import parse_size_bytes

T = TypeVar("T")

_LONGEST_SHOWN = 120  # characters of a wrong value in an error
_UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, bytes that are no UTF-8
_VARIABLE_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?|\*")


@dataclass(eq=False)
class SettingsError(WorkerError):
    """A setting the worker cannot start with, as one line: `name` is the flag or variable to change.

    `value` is masked where it is secret, None where nothing is set; `right` completes "must be ...".
    """

    name: str
    value: str | None
    right: str

    def __str__(self) -> str:
        said = " is not set; it" if self.value is None else f'="{self.value}"'
        return one_line(f"{self.name}{said} must be {self.right}")


@dataclass(frozen=True, slots=True)
class OptionValue:
    """The text an option has, in the form its flag takes, and where it comes from.

    `text` None: required and missing. `source`: `flag --x`, `environment NAME`, `default`, `derived`
    (from other settings or the machine) or `not set`.
    """

    option: Option
    text: str | None = field(repr=False)
    source: str

    @property
    def shown(self) -> str | None:
        """The text as people may see it: secrets and passwords masked, on one line."""
        if self.text is None:
            return None
        if self.option.secret:
            return MASK if self.text else ""
        return one_line(mask_url_value(self.text) if self.option.kind is Kind.URL else mask_url(self.text))

    @property
    def given(self) -> bool:
        """True where a flag or a variable set it."""
        return self.source.startswith(("flag ", "environment "))

    @property
    def origin(self) -> str:
        """The flag or variable that set it, or could."""
        if self.given:
            return self.source.partition(" ")[2]
        return " or ".join((*self.option.env[:1], self.option.flags[0]))

    def error(self, right: str) -> SettingsError:
        """That this value is wrong and must be `right`."""
        given = None if self.source == "default" else self.shown
        return SettingsError(
            self.origin, None if given is None else one_line(given, limit=_LONGEST_SHOWN), right
        )


@dataclass
class OptionReader:
    """Reads every option as its type and keeps what was wrong, so that all of it can be reported at once.

    Where a value is wrong, the error is kept in `errors` and the reading goes on with a stand-in.
    """

    cwd: Path
    home: Path
    values: dict[str, OptionValue] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    errors: list[SettingsError] = field(default_factory=list)

    def choose(self, flags: Mapping[str, str | None], environment: Mapping[str, str]) -> None:
        """Give every option its text: the flag, else the first variable that is set, else the default."""
        for option in OPTIONS:
            self.values[option.field] = self._chosen(option, flags.get(option.field), environment)

    def _chosen(self, option: Option, flag: str | None, environment: Mapping[str, str]) -> OptionValue:
        if flag is not None:
            return OptionValue(option, flag, f"flag {option.flags[0]}")
        for name in option.env:
            text = environment.get(name)
            if text is None:
                continue
            if option.kind in NEVER_EMPTY and not text.strip():
                self.warn(f"{name} is set to nothing and counts as not set")
                continue
            return OptionValue(option, text, f"environment {name}")
        if option.required:
            return OptionValue(option, None, "not set")
        return OptionValue(option, option.default, "default")

    def warn(self, text: str) -> None:
        """Keep a line for the log; URLs in it lose their passwords."""
        self.warnings.append(one_line(mask_url(text)))

    def warn_of(self, name: str, text: str) -> None:
        """Keep a line for the log about the value of option `name`."""
        value = self.values[name]
        self.warn(f'{value.origin}="{one_line(value.shown or "", limit=_LONGEST_SHOWN)}" {text}')

    def refuse(self, name: str, right: str) -> None:
        """Keep the error that option `name` must be `right`."""
        self.errors.append(self.values[name].error(right))

    def show(self, name: str, text: str) -> None:
        """Make `text` the effective value of option `name`, in the form its flag takes."""
        self.values[name] = replace(self.values[name], text=text)

    def derive(self, name: str, text: str) -> None:
        """As `show`, for a text that follows from other settings: where nothing was set it is `derived`."""
        self.show(name, text)
        if not self.is_set(name):
            self.values[name] = replace(self.values[name], source="derived")

    def is_set(self, name: str) -> bool:
        """True where a flag or a variable, not the default, gave the text."""
        return self.values[name].given

    def raw(self, name: str) -> str:
        """The text less a line end (env files and mounted secrets have them); ``""`` where one is missing."""
        return (self.values[name].text or "").rstrip("\r\n")

    def text(self, name: str) -> str:
        """A text that can go into headers, JSON and log lines."""
        text = self.raw(name)
        if _UNWRITABLE.search(text):
            self.refuse(name, "one line of UTF-8 without control characters")
        return text

    def switch(self, name: str) -> bool:
        return self._parsed(name, parse_bool, stand_in=False)

    def number(self, name: str) -> int:
        return self._parsed(name, parse_int, stand_in=0)

    def duration_s(self, name: str, *, shortest_s: float) -> float:
        """A duration of at least `shortest_s` seconds."""

        def parse(text: str) -> float:
            duration_s = parse_duration_s(text)
            if duration_s < shortest_s:
                raise WrongValue(text, f"a duration of at least {shortest_s:g}s")
            return duration_s

        return self._parsed(name, parse, stand_in=shortest_s)

    def size_bytes(self, name: str) -> int:
        return self._parsed(name, parse_size_bytes, stand_in=0)

    def count(self, name: str, *, most: int) -> int:
        """A number from 1 to `most`."""

        def parse(text: str) -> int:
            number = parse_int(text)
            if not 1 <= number <= most:
                raise WrongValue(text, f"a number from 1 to {most}")
            return number

        return self._parsed(name, parse, stand_in=1)

    def choice(self, name: str) -> str:
        choices = self.values[name].option.choices

        def parse(text: str) -> str:
            if text.lower() not in choices:
                raise WrongValue(text, f"one of {', '.join(choices)}")
            return text.lower()

        return self._parsed(name, parse, stand_in=choices[0])

    def path(self, name: str) -> Path | None:
        """An absolute path, from `cwd` on, `~` the home directory; None where it is set to nothing."""
        text = self.raw(name)
        if not text.strip():
            return None
        if text == "~" or text.startswith("~/"):
            text = f"{self.home}/{text[1:]}"
        path = Path(os.path.normpath(self.cwd / text))  # lexical, as upstream: a symlink stays in the path
        self.show(name, str(path))
        return path

    def directory(self, name: str) -> Path:
        """A path that must not be nothing."""
        path = self.path(name)
        if path is None:
            self.refuse(name, f"a directory; unset it for {self.cwd / self.values[name].option.default}")
            return self.cwd
        return path

    def items(self, name: str) -> tuple[str, ...]:
        """The entries of a comma list, trimmed, without empty ones."""
        return tuple(entry.strip() for entry in self.text(name).split(",") if entry.strip())

    def variable_patterns(self, name: str) -> tuple[str, ...] | None:
        """Names of variables, `PREFIX_*` for many; None where the list is empty."""
        patterns = self.items(name)
        if not all(_VARIABLE_PATTERN.fullmatch(pattern) for pattern in patterns):
            self.refuse(name, "names of variables with commas, PREFIX_* for many, like HF_TOKEN,CUDA_*")
        return patterns or None

    def galleries(self, name: str) -> tuple[Gallery, ...]:
        """Galleries; a text that is no gallery list is warned about and leaves none, as upstream."""
        try:
            return parse_galleries(self.raw(name))
        except GalleryListUnreadable as error:
            self.warn_of(name, f"leaves no gallery: {error.reason}")
            return ()

    def http_url(self, name: str, *, right: str) -> str:
        """An http or https URL without the slashes at its end; ``""`` where it is empty."""
        text = self.text(name).strip().rstrip("/")
        if text and not _is_http_url(text):
            self.refuse(name, right)
        return text

    def _parsed(self, name: str, parse: Callable[[str], T], *, stand_in: T) -> T:
        try:
            return parse(self.raw(name).strip())
        except WrongValue as wrong:
            self.refuse(name, wrong.right)
            return stand_in


def _is_http_url(text: str) -> bool:
    """True for http and https with a host, a possible port where there is one, and nothing after the path."""
    try:
        parts = urlsplit(text)
        possible = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half a bracket
        return False
    return possible and not (parts.query or parts.fragment or any(char.isspace() for char in text))
