"""docs/compatibility.md names, for every row that a test covers, just those tests."""

import pytest

from tests.compatibility import (
    COLUMNS,
    PAGE,
    STATES,
    TEST,
    all_tests,
    covered,
    natural,
    page_by_row,
    page_rows,
    required_rows,
)


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


def test_no_row_of_the_parts_told_whole_is_missing() -> None:
    assert required_rows() - set(page_by_row()) == set()


def test_no_row_is_there_without_a_test() -> None:
    assert set(page_by_row()) - set(covered()) == set()


ROWS: list[str] = sorted(covered(), key=natural)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_names_just_the_tests_that_name_it(row: str) -> None:
    if row not in page_by_row():
        pytest.fail(f"docs/compatibility.md has no row {row}")
    assert set(TEST.findall(page_by_row()[row][4])) == covered()[row]


def test_every_test_the_page_names_exists() -> None:
    named = set(TEST.findall(PAGE.read_text(encoding="utf-8")))
    assert named
    assert named - set(all_tests()) == set()
