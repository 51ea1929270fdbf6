"""What services remember is found wherever it hangs, and nothing else is looked at."""

import random
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localai_worker.app.simulator.fleet.holdings import holdings
from localai_worker.domain.keyed_locks import KeyedLocks
from localai_worker.domain.outcome_log import OutcomeLog
from localai_worker.domain.store_health import StoreHealth


@dataclass
class Service:
    """Stands for one of the domain, with all kinds of fields."""

    names: list[str] = field(default_factory=lambda: ["a", "b"])
    by_key: dict[str, deque[int]] = field(default_factory=lambda: {"x": deque([1, 2, 3])})
    locks: KeyedLocks[str] = field(default_factory=KeyedLocks)
    path: Path = Path("/")
    chance: random.Random = field(default_factory=random.Random)
    itself: Any = None


Service.__module__ = "localai_worker.domain.of_this_test"


def test_containers_are_found_at_any_depth() -> None:
    service = Service()
    service.itself = service
    assert dict(holdings(service, "it")) == {
        "it.names": 2,
        "it.by_key": 1,
        "it.by_key[]": 3,
        "it.locks._entries": 0,
    }


def test_a_field_that_nobody_declared_counts_too() -> None:
    locks: KeyedLocks[str] = KeyedLocks()
    vars(locks)["_all"] = [0] * 70
    assert ("locks._all", 70) in holdings(locks, "locks")


def test_objects_of_others_are_left_alone() -> None:
    assert list(holdings(random.Random(), "random")) == []
    assert list(holdings(StoreHealth(random.Random()), "health")) == []  # type: ignore[arg-type]
    assert list(holdings(OutcomeLog("calls", log=None), "log")) == []  # type: ignore[arg-type]
