"""What the services of a worker remember: every container that hangs from one, found by walking through them.

A service cannot forget to be counted: what is looked at are the fields of its objects, whatever they are.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, cast

_CONTAINERS = (dict, list, set, frozenset, tuple, deque)
_OURS = ("localai_worker.domain.", "localai_worker.app.")
_NOT_OURS = (
    "localai_worker.app.simulator.",
    "localai_worker.app.settings",
    "localai_worker.app.virtual_time",
    "localai_worker.domain.ports.",
)
_LOOKED_INTO = 64  # entries of one container: what hangs from the first ones


def holdings(service: object, name: str) -> Iterator[tuple[str, int]]:
    """The path and length of every container that `service` and what it is made of hold, each once.

    Only what domain and app define is followed; what it finds in containers too.
    """
    seen = {id(service)}
    waiting: list[tuple[str, Any]] = [(name, service)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, _CONTAINERS):
            yield path, len(value)
            inner = value.values() if isinstance(value, Mapping) else value
            held = [("[]", each) for each in islice(inner, _LOOKED_INTO)]
        else:
            held = [(field, getattr(value, field, None)) for field in _slots(cast(Any, type(value)))]
            held += getattr(value, "__dict__", {}).items()
        for field, each in held:
            if _is_followed(cast(Any, type(each))) and id(each) not in seen:
                seen.add(id(each))
                waiting.append((f"{path}{field}" if field == "[]" else f"{path}.{field}", each))


@cache
def _is_followed(kind: type) -> bool:
    if issubclass(kind, _CONTAINERS):
        return True
    module = kind.__module__ + "."
    return module.startswith(_OURS) and not module.startswith(_NOT_OURS)


@cache
def _slots(kind: type) -> tuple[str, ...]:
    found: list[str] = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        found += (slots,) if isinstance(slots, str) else slots
    return tuple(found)
