"""Fetches that a newer request for the same directory may take over."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from anyio import CancelScope


class Superseded(Exception):
    """A newer request does the same work; this one looks again when that is done."""


@dataclass
class FetchesInFlight:
    """The fetches going on right now, by the backend directory they are for."""

    _scopes: dict[Path, CancelScope] = field(default_factory=dict)

    @contextmanager
    def fetching(self, place: Path) -> Iterator[None]:
        """A fetch for `place`; its holder has the lock of that directory.

        Raises:
            Superseded: `take_over` was called for `place` meanwhile.
        """
        with CancelScope() as scope:
            self._scopes[place] = scope
            try:
                yield
            finally:
                del self._scopes[place]
        if scope.cancelled_caught:
            raise Superseded

    def take_over(self, places: Iterable[Path]) -> None:
        """Cancel what is fetched for `places`: whoever calls will fetch anew, and what came in is kept."""
        for place in places:
            if place in self._scopes:
                self._scopes[place].cancel()
