"""Commands whose options are those of the option table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import typer
from typer.core import TyperCommand

from .option_table import OPTIONS
from .options import Kind, Option

Flags = Mapping[str, str]
"""The text of every flag that was given, by the field of its option."""

_META_KEY = f"{__name__}.flags"


class OptionTableCommand(TyperCommand):
    """A command that takes every option of the table; `given_flags` has what was given.

    The table's flags are read here and stay texts: typer knows no switch that is bare or has a value,
    and most values come from the environment anyway. Other parameters are typer's as usual.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        flags, rest = take_flags(args, OPTIONS)
        ctx.meta[_META_KEY] = flags
        return super().parse_args(ctx, rest)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Settings"):
            formatter.write_dl([_help_row(option) for option in OPTIONS])


def given_flags(context: typer.Context) -> Flags:
    """The table's flags of a command line that an `OptionTableCommand` parsed."""
    return cast("Flags", context.meta[_META_KEY])


def take_flags(arguments: Sequence[str], options: Sequence[Option]) -> tuple[Flags, list[str]]:
    """Split a command line into the flags of `options`, by field, and everything else.

    Takes `--x value`, `--x=value`, for switches `--x` and `--x=value`, for negatable ones `--no-x`.
    Of a repeated flag the last counts; a list flag adds to its list. What follows `--` is no flag.

    Raises:
        typer.BadParameter: the value of the last flag is missing.
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


def _value(flag: str, option: Option, remaining: Iterator[str]) -> str:
    if option.kind is Kind.SWITCH:
        return "true"
    value = next(remaining, None)
    if value is None:
        raise typer.BadParameter(f"{flag} needs a value: {flag}={_placeholder(option)}")
    return value


def _help_row(option: Option) -> tuple[str, str]:
    default = f"; default {option.default}" if option.default and option.kind is not Kind.GALLERIES else ""
    value = f"[={option.kind.value}]" if option.kind is Kind.SWITCH else f" {_placeholder(option)}"
    return ", ".join(option.flags) + value, f"{option.help} [{', '.join(option.env)}{default}]"


def _placeholder(option: Option) -> str:
    return "|".join(option.choices) or option.kind.value
