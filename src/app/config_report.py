"""What `localai-worker config` prints: every option, its effective value and where it comes from."""

import json
from collections.abc import Sequence
from typing import TextIO

from .option_values import OptionValue

_MISSING = "(missing, required)"


def config_json(values: Sequence[OptionValue]) -> str:
    """One JSON object `{option: {value, source}}`: masked, in the form flags take, null where not set."""
    return json.dumps({each.option.name: {"value": each.shown, "source": each.source} for each in values})


def write_config_table(values: Sequence[OptionValue], out: TextIO) -> None:
    """Write a table of option, value and source: ruled on a terminal, plain columns elsewhere."""
    rows = [
        (each.option.name, _MISSING if each.shown is None else each.shown, each.source) for each in values
    ]
    if out.isatty():
        _write_ruled(rows, out)
        return
    # The value comes last: some are long, and a column as wide as the longest would push the source away.
    name_width, source_width = (max(len(row[column]) for row in rows) for column in (0, 2))
    out.writelines(
        f"{name:<{name_width}}  {source:<{source_width}}  {value}".rstrip() + "\n"
        for name, value, source in rows
    )


def _write_ruled(rows: Sequence[tuple[str, str, str]], out: TextIO) -> None:
    from rich.console import Console  # here: only people at a terminal wait for it
    from rich.table import Table
    from rich.text import Text

    table = Table("option", "value", "source")
    for row in rows:
        table.add_row(*map(Text, row))  # as Text: a value may hold what rich takes for markup
    Console(file=out).print(table)
