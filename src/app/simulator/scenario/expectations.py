"""Comparing what a step gave with what a scenario expects of it."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def differences(actual: object, wanted: object, where: str = "result") -> Iterator[str]:
    """One line for every difference; nothing when `actual` is as `wanted`.

    A mapping names the fields that matter; the others are free. A list is compared element by element. A
    mapping with a single key that begins with `$` is a test of its own: `$contains`, `$matches` (a regular
    expression), `$length`, `$at_least`, `$at_most`, `$not`, `$one_of`, `$has` (elements in any order).
    """
    if isinstance(wanted, Mapping):
        operator = next(iter(wanted)) if len(wanted) == 1 else ""
        if operator.startswith("$"):
            yield from _test(operator, actual, wanted[operator], where)
        elif not isinstance(actual, Mapping):
            yield f"{where}: {actual!r} is no mapping"
        else:
            for key, value in wanted.items():
                if key not in actual:
                    yield f"{where}.{key}: missing"
                else:
                    yield from differences(actual[key], value, f"{where}.{key}")
    elif isinstance(wanted, list) and isinstance(actual, list | tuple):
        if len(wanted) != len(actual):
            yield f"{where}: {len(actual)} elements instead of {len(wanted)}: {actual!r}"
        for index, (one, other) in enumerate(zip(actual, wanted, strict=False)):
            yield from differences(one, other, f"{where}[{index}]")
    elif isinstance(wanted, bool) is not isinstance(actual, bool) or actual != wanted:
        yield f"{where}: {actual!r} instead of {wanted!r}"


def _matches(actual: Any, pattern: Any) -> bool:
    return re.search(str(pattern), str(actual)) is not None


def _contains(actual: Any, part: Any) -> bool:
    return part in (actual if isinstance(actual, list | tuple | Mapping) else str(actual))


def _has(actual: Any, elements: Any) -> bool:
    return all(any(not list(differences(one, each)) for one in actual) for each in elements)


_TESTS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$contains": _contains,
    "$matches": _matches,
    "$length": lambda actual, count: len(actual) == count,
    "$at_least": lambda actual, least: actual >= least,
    "$at_most": lambda actual, most: actual <= most,
    "$not": lambda actual, other: bool(list(differences(actual, other))),
    "$one_of": lambda actual, others: any(not list(differences(actual, each)) for each in others),
    "$has": _has,
}


def _test(operator: str, actual: object, argument: object, where: str) -> Iterator[str]:
    test = _TESTS.get(operator)
    if test is None:
        yield f"{where}: unknown test {operator}; there are {', '.join(_TESTS)}"
        return
    try:
        passed = test(actual, argument)
    except (TypeError, re.error) as error:
        yield f"{where}: {operator} {argument!r} cannot be tried on {actual!r}: {error}"
        return
    if not passed:
        yield f"{where}: {actual!r} is not {operator} {argument!r}"
