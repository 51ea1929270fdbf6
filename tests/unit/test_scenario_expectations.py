"""What a scenario expects, compared with what a step gave."""

import pytest

from localai_worker.app.simulator.scenario.expectations import differences


@pytest.mark.parametrize(
    ("actual", "wanted"),
    [
        ({"a": 1, "b": 2}, {"a": 1}),
        ([1, {"b": [2]}], [1, {"b": [2]}]),
        ("hello world", {"$contains": "o w"}),
        ([1, 2], {"$contains": 2}),
        ("abc", {"$matches": "^a.c$"}),
        ([1, 2], {"$length": 2}),
        (3, {"$at_least": 3}),
        (3, {"$at_most": 3}),
        (3, {"$not": 4}),
        ("x", {"$one_of": ["y", "x"]}),
        ([{"a": 1, "b": 1}, {"a": 2}], {"$has": [{"a": 2}, {"a": 1}]}),
        (None, None),
    ],
)
def test_what_is_as_wanted_makes_no_difference(actual: object, wanted: object) -> None:
    assert list(differences(actual, wanted)) == []


@pytest.mark.parametrize(
    ("actual", "wanted", "says"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "result.a.b: 1 instead of 2"),
        ({}, {"a": 1}, "result.a: missing"),
        ([1], [1, 2], "result: 1 elements instead of 2: [1]"),
        ([1, 3], [1, 2], "result[1]: 3 instead of 2"),
        ("x", {"a": 1}, "result: 'x' is no mapping"),
        (1, True, "result: 1 instead of True"),
        ("abc", {"$matches": "z"}, "result: 'abc' is not $matches 'z'"),
        ("abc", {"$wrong": 1}, "result: unknown test $wrong"),
        (None, {"$length": 1}, "result: $length 1 cannot be tried on None"),
        ("a", {"$matches": "("}, "result: $matches '(' cannot be tried"),
        ([1], {"$has": [2]}, "result: [1] is not $has [2]"),
        ("1", 1, "result: '1' instead of 1"),
    ],
)
def test_a_difference_is_told_with_its_place(actual: object, wanted: object, says: str) -> None:
    told = "; ".join(differences(actual, wanted))
    assert told.startswith(says)
