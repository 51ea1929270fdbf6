"""docs/compatibility.md names, for every row that a test covers, just those tests."""

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
COLUMNS = ("row", "what it says", "seed", "newer", "tests", "ours")
STATES = {"fault", "right", "absent"}

# A sheet's letter and a row of one of its tables, or the upstream commit that names the row.
_ROW = re.compile(r"\b[NHGS]-(?:[A-Z]*\d+|[0-9a-f]{9})\b")
_TEST = re.compile(r"`(tests/[\w/]+\.py::\w+)`")


def docstrings_in(path: Path) -> dict[str, str]:
    """Docstring by the name pytest gives a test, for every test function of a file."""
    found = {}
    file = path.relative_to(ROOT).as_posix()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
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


@cache
def page_rows() -> tuple[tuple[str, ...], ...]:
    """The cells of every line of the page's first table, without its head."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index("| " + " | ".join(COLUMNS) + " |")
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(tuple(cell.strip() for cell in line.strip("|").split(" | ")))
    return tuple(rows)


def natural(row: str) -> tuple[str, str, int, str]:
    match = re.fullmatch(r"([NHGS])-([A-Z]*)(\d*)([0-9a-f]*)", row)
    assert match, row
    letter, table, number, rest = match.groups()
    return (letter, table, len(rest) > 0, f"{int(number or 0):012d}{rest}")


@cache
def page_by_row() -> dict[str, tuple[str, ...]]:
    return {cells[0]: cells for cells in page_rows()}


def test_every_line_is_whole() -> None:
    for cells in page_rows():
        assert len(cells) == len(COLUMNS), cells
        assert all(cells), cells
        assert {cells[2], cells[3]} <= STATES, cells


def test_every_row_is_there_once_and_in_order() -> None:
    rows = [cells[0] for cells in page_rows()]
    assert rows == sorted(set(rows), key=natural)


def test_every_row_that_a_test_names_is_there() -> None:
    missing = {row: sorted(tests) for row, tests in covered().items() if row not in page_by_row()}
    assert missing == {}, "add these rows to docs/compatibility.md"


def test_no_row_is_there_without_a_test() -> None:
    assert set(page_by_row()) - set(covered()) == set()


ROWS: list[str] = sorted(covered(), key=natural)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_names_just_the_tests_that_name_it(row: str) -> None:
    if row not in page_by_row():
        pytest.fail(f"docs/compatibility.md has no row {row}")
    assert set(_TEST.findall(page_by_row()[row][4])) == covered()[row]


def test_every_test_the_page_names_exists() -> None:
    named = set(_TEST.findall(PAGE.read_text(encoding="utf-8")))
    assert named
    assert named - set(all_tests()) == set()
