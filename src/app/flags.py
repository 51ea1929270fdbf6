"""The flags of a command line, split off by the option table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..domain.errors import WorkerError
from .options import Kind, Option

Flags = Mapping[str, str]
"""The text of every flag that was given, by the field of its option."""


@dataclass(eq=False)
class MissingValue(WorkerError):
    """The command line ends in a flag that wants a value."""

    flag: str
    placeholder: str

    def __str__(self) -> str:
        return f"{self.flag} needs a value: {self.flag}={self.placeholder}"


def take_flags(arguments: Sequence[str], options: Sequence[Option]) -> tuple[Flags, list[str]]:
    """Split a command line into the flags of `options`, by field, and everything else.

    Takes `--x value`, `--x=value`, for switches `--x` and `--x=value`, for negatable ones `--no-x`.
    Of a repeated flag the last counts; a list flag adds to its list. What follows `--` is no flag.

    Raises:
        MissingValue: the value of the last flag is missing.
    """
    by_flag = {flag: option for option in options for flag in option.flags}
    negated = {f"--no-{option.name}": option for option in options if option.negatable}
    flags: dict[str, str] = {}
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            rest += [argument, *remaining]
            break
        flag, equals, text = argument.partition("=")
        option = by_flag.get(flag)
        if option is not None:
            value = text if equals else _value(flag, option, remaining)
            adds = option.kind is Kind.LIST and option.field in flags
            flags[option.field] = f"{flags[option.field]},{value}" if adds else value
        elif argument in negated:
            flags[negated[argument].field] = "false"
        else:
            rest.append(argument)
    return flags, rest


def placeholder(option: Option) -> str:
    """What stands for the value of `option` in help and errors."""
    return "|".join(option.choices) or option.kind.value


def _value(flag: str, option: Option, remaining: Iterator[str]) -> str:
    if option.kind is Kind.SWITCH:
        return "true"
    value = next(remaining, None)
    if value is None:
        raise MissingValue(flag, placeholder(option))
    return value
