"""Progress of installs, also for those who wait for one of them."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .install_progress import InstallStep, Listen


@dataclass
class SharedProgress:
    """What the installs that are going on tell, by the directories they write."""

    _latest: dict[Path, InstallStep] = field(default_factory=dict)
    _waiting: list[tuple[frozenset[Path], Listen]] = field(default_factory=list)

    @contextmanager
    def telling(self, places: Collection[Path], listen: Listen) -> Iterator[Listen]:
        """For the install that holds `places`: a `Listen` for its steps, heard by those who wait as well."""

        def tell(step: InstallStep) -> None:
            listen(step)
            self._latest.update(dict.fromkeys(places, step))
            for wanted, other in self._waiting:
                if not wanted.isdisjoint(places):
                    other(step)

        try:
            yield tell
        finally:
            for place in places:
                self._latest.pop(place, None)

    @contextmanager
    def overhearing(self, places: Collection[Path], listen: Listen) -> Iterator[None]:
        """For one that waits for `places`: it hears those who hold them, their last step at once."""
        entry = (frozenset(places), listen)
        self._waiting.append(entry)
        try:
            for step in dict.fromkeys(self._latest[place] for place in places if place in self._latest):
                listen(step)
            yield
        finally:
            self._waiting.remove(entry)
