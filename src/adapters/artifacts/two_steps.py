"""What all sources of payloads share: they look what there is, and then put it in place, both in threads."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from ...domain.ports.artifacts import (
    Approve,
    ArtifactEstimate,
    FetchedArtifact,
    Report,
    approve_any,
    unreported,
)
from .progress import Meter, reporting
from .web.flight import Flight, in_flight, run

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be put where. `sha256` is what the gallery says, "" for nothing."""

    uri: str
    into: Path
    sha256: str
    meter: Meter
    flight: Flight


class TwoSteps(ABC, Generic[Found]):
    """An `ArtifactSource` by two steps that block; both notice a cancellation by their flight."""

    async def fetch(
        self,
        uri: str,
        into: Path,
        *,
        sha256: str = "",
        approve: Approve = approve_any,
        report: Report = unreported,
    ) -> FetchedArtifact:
        async with reporting(report) as meter, in_flight() as flight:
            found = await run(partial(self._look, uri, flight), flight)
            image_digest = self._image_digest(found)
            if image_digest is not None:
                await approve(image_digest)
            order = Order(uri, into, sha256, meter, flight)
            return await run(partial(self._place, found, order), flight)

    async def describe(self, uri: str) -> ArtifactEstimate:
        async with in_flight() as flight:
            found = await run(partial(self._look, uri, flight), flight)
            return await run(partial(self._estimate, found, uri), flight)

    @abstractmethod
    def _look(self, uri: str, flight: Flight) -> Found:
        """What there is; nothing is written."""

    def _image_digest(self, found: Found) -> str | None:
        """What is approved first, "" where an image does not say; None for what is no image."""
        del found
        return None

    @abstractmethod
    def _place(self, found: Found, order: Order) -> FetchedArtifact:
        """Put it in place."""

    @abstractmethod
    def _estimate(self, found: Found, uri: str) -> ArtifactEstimate:
        """What fetching it would take."""
