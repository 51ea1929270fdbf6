"""A registry of our own for each test, and an empty directory to fetch into."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry import OwnRegistry, own_registry


@pytest.fixture
def own() -> Iterator[OwnRegistry]:
    with own_registry() as registry:
        yield registry


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"
