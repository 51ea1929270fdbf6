"""The table of docs/compatibility.md and the tests whose docstrings name its rows.

`python -m tests.compatibility` (part of `make fmt`) puts rows in order, names their tests, and adds a line
with question marks for every row that a test names and the page lacks: what it says is for a person to write.
"""

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

from tests.syntax import parsed

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "compatibility.md"
COLUMNS = ("row", "what it says", "seed", "newer", "tests", "ours")
STATES = {"fault", "right", "absent"}

# The last row of each part of the sheets that the page tells whole: galleries, installing, listing, deleting,
# what upstream mended and what it did not, model galleries and prefetch, object storage.
_WHOLE_PARTS = (
    "G-1.1.12 G-1.2.18 G-1.3.13 G-1.4.8 G-1.5.15 G-1.6.16 G-2.1.10 G-2.2.16 G-2.3.13 G-2.4.8 G-2.5.7 G-2.6.16"
    " G-2.7.7 G-2.8.1 G-3.1.11 G-3.2.3 G-3.3.3 G-3.4.6 G-3.5.4 G-F23 G-W33"
    " M-1.8 M-2.9 M-2.1.4 M-3.9 M-4.1.5 M-4.2.9 M-4.3.8 M-5.3 M-6.7 M-7.5"
    " S-1.1.7 S-1.2.11 S-1.3.10 S-1.4.4 S-1.5.12"
)

# A sheet's letter and: a row of one of its numbered tables; or section and row, counted from the top of the
# section; or the upstream commit that names the row.
_ROW = re.compile(r"\b[NHGSM]-(?:\d+(?:\.\d+)+|[A-Z]*\d+|[0-9a-f]{9})\b")
TEST = re.compile(r"`(tests/[\w/]+\.py::\w+)`")


def docstrings_in(path: Path) -> dict[str, str]:
    """Docstring by the name pytest gives a test, for every test function of a file."""
    found = {}
    file = path.relative_to(ROOT).as_posix()
    for node in parsed(path).body:
        prefix, members = (f"{node.name}::", node.body) if isinstance(node, ast.ClassDef) else ("", [node])
        for member in members:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and member.name.startswith("test_"):
                found[f"{file}::{prefix}{member.name}"] = ast.get_docstring(member) or ""
    return found


@cache
def all_tests() -> dict[str, str]:
    return {
        name: text
        for path in (ROOT / "tests").rglob("test_*.py")
        for name, text in docstrings_in(path).items()
    }


def covered() -> dict[str, set[str]]:
    """Tests by the row their docstring names."""
    rows = defaultdict[str, set[str]](set)
    for test, docstring in all_tests().items():
        for row in _ROW.findall(docstring):
            rows[row].add(test)
    return rows


def required_rows() -> set[str]:
    """Every row of the parts that the page must tell whole."""
    last = [re.fullmatch(r"(.*\D)(\d+)", row) for row in _WHOLE_PARTS.split()]
    return {f"{each[1]}{number}" for each in last if each for number in range(1, int(each[2]) + 1)}


@cache
def page_rows() -> tuple[tuple[str, ...], ...]:
    """The cells of every line of the page's first table, without its head."""
    _, table, _ = split(PAGE.read_text(encoding="utf-8").splitlines())
    return tuple(tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in table)


def split(lines: list[str]) -> tuple[list[str], list[str], list[str]]:
    """The lines of the page up to its first row, those rows, and what follows."""
    start = lines.index("| " + " | ".join(COLUMNS) + " |") + 2
    end = next(number for number in range(start, len(lines)) if not lines[number].startswith("|"))
    return lines[:start], lines[start:end], lines[end:]


def natural(row: str) -> tuple[str, str, int, str]:
    if match := re.fullmatch(r"([NHGSM])-(\d+(?:\.\d+)+)", row):
        return (match[1], "", 0, ".".join(f"{int(part):012d}" for part in match[2].split(".")))
    match = re.fullmatch(r"([NHGSM])-([A-Z]*)(\d*)([0-9a-f]*)", row)
    assert match, row
    letter, table, number, rest = match.groups()
    return (letter, table, len(rest) > 0, f"{int(number or 0):012d}{rest}")


@cache
def page_by_row() -> dict[str, tuple[str, ...]]:
    return {cells[0]: cells for cells in page_rows()}


def tests_cell(row: str) -> str:
    """The tests of `row` as the page lists them."""
    return "<br>".join(f"`{test}`" for test in sorted(covered()[row]))


def rewrite() -> None:
    """Bring the table in order; of two lines for one row (a merge) the last one stays."""
    head, _, rest = split(PAGE.read_text(encoding="utf-8").splitlines())
    told = {cells[0]: cells for cells in page_rows() if len(cells) == len(COLUMNS)}
    table = []
    for row in sorted(covered(), key=natural):
        _, says, seed, newer, _, ours = told.get(row, (row, "?", "?", "?", "", "?"))
        table.append("| " + " | ".join((row, says, seed, newer, tests_cell(row), ours)) + " |")
    PAGE.write_text("\n".join([*head, *table, *rest, ""]), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
