"""Commands whose options are those of the option table."""

from typing import Any, cast

import typer
from typer.core import TyperCommand

from .flags import Flags, MissingValue, placeholder, take_flags
from .option_table import OPTIONS
from .options import Kind, Option

_META_KEY = f"{__name__}.flags"


class OptionTableCommand(TyperCommand):
    """A command that takes every option of the table; `given_flags` has what was given.

    The table's flags are read here and stay texts: typer knows no switch that is bare or has a value,
    and most values come from the environment anyway. Other parameters are typer's as usual.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            flags, rest = take_flags(args, OPTIONS)
        except MissingValue as error:
            raise typer.BadParameter(str(error)) from error
        ctx.meta[_META_KEY] = flags
        return super().parse_args(ctx, rest)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Settings"):
            formatter.write_dl([_help_row(option) for option in OPTIONS])


def given_flags(context: typer.Context) -> Flags:
    """The table's flags of a command line that an `OptionTableCommand` parsed."""
    return cast("Flags", context.meta[_META_KEY])


def _help_row(option: Option) -> tuple[str, str]:
    default = f"; default {option.default}" if option.default and option.kind is not Kind.GALLERIES else ""
    value = f"[={option.kind.value}]" if option.kind is Kind.SWITCH else f" {placeholder(option)}"
    return ", ".join(option.flags) + value, f"{option.help} [{', '.join(option.env)}{default}]"
