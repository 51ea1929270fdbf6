"""What an install would do, and why, without doing it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .capability import Detection, choose
from .errors import ArtifactInvalid, ArtifactUnavailable, UnsupportedSource, WorkerError
from .galleries import Gallery
from .gallery_index import Considered, GalleryEntry, GalleryIndexes
from .installed import InstalledBackend, InstalledBackends
from .integrity import Integrity, Payload
from .ports.artifacts import ArtifactEstimate, ArtifactSource
from .ports.filesystem import DiskSpace, FileSystem
from .source_order import next_source


@dataclass(frozen=True, slots=True)
class Build:
    """One build of a meta backend: which capability it is for, and why it is not taken ("" if it is)."""

    capability: str
    name: str
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class TriedSource:
    """A source that was asked: what a fetch from it would take, or why it would give nothing."""

    uri: str
    estimate: ArtifactEstimate | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What an install of `name` would do on this node.

    Attributes:
        detection: how the node's capability came about.
        installed: the backend that the name starts already; then nothing is downloaded.
        considered: the gallery entries looked at, in order.
        builds: those of a meta backend, in the gallery's order.
        target: the directory the payload would go to; None where nothing would be installed.
        sources: asked in the order of an install, which the last one ends if it has an estimate.
        disk: room where the backends lie; None where that cannot be told.
        trust: what vouches for the payload.
        problem: why nothing would be installed; "" if something would.
    """

    name: str
    detection: Detection
    installed: InstalledBackend | None = None
    considered: tuple[Considered, ...] = ()
    builds: tuple[Build, ...] = ()
    target: Path | None = None
    sources: tuple[TriedSource, ...] = ()
    disk: DiskSpace | None = None
    trust: str = ""
    problem: str = ""

    @property
    def source(self) -> TriedSource | None:
        """The source that would serve the payload."""
        return next((each for each in self.sources if each.estimate is not None), None)


@dataclass
class ExplainBackend:
    """Looks up what `InstallBackends` would, and asks sources what a fetch would take."""

    filesystem: FileSystem
    installed: InstalledBackends
    artifacts: ArtifactSource
    galleries: GalleryIndexes
    integrity: Integrity
    detection: Detection

    async def explain(self, name: str, galleries: Sequence[Gallery]) -> Explanation:
        """What an install of `name` would do now; failures are part of it."""
        installed, considered = None, list[Considered]()
        entry: GalleryEntry | None = None
        sources: tuple[TriedSource, ...] = ()
        problem = ""
        try:
            installed = await self.installed.find(name)
            choice = await self.galleries.choose(name, galleries, considered.append)
            entry = choice.concrete
            payload = Payload(entry.name, entry.sources, entry.sha256, entry.gallery)
            self.integrity.admit(payload, entry.uri)
            sources = await self._ask(entry.sources)
            if all(each.estimate is None for each in sources):
                problem = sources[0].problem
        except WorkerError as error:
            problem = str(error)
        disk = await self.filesystem.space(self.installed.backends_path)
        return Explanation(
            name=name,
            detection=self.detection,
            installed=installed,
            considered=tuple(considered),
            builds=self._builds(considered),
            target=self.installed.backends_path / entry.name if entry else None,
            sources=sources,
            disk=disk,
            trust=_trust(entry) if entry else "",
            problem=problem or _shortage(sources, disk),
        )

    def _builds(self, considered: Sequence[Considered]) -> tuple[Build, ...]:
        meta = next((each.entry for each in considered if each.entry.is_meta), None)
        if meta is None:
            return ()
        taken = choose(self.detection.capability, meta.capabilities)
        return tuple(
            Build(key, name, "" if key == taken else f"this node is {self.detection.capability}")
            for key, name in meta.capabilities.items()
        )

    async def _ask(self, sources: Sequence[str]) -> tuple[TriedSource, ...]:
        tried: list[TriedSource] = []
        failures: list[WorkerError] = []
        while (uri := next_source(sources, failures)) is not None:
            try:
                return (*tried, TriedSource(uri, await self.artifacts.describe(uri)))
            except (ArtifactUnavailable, ArtifactInvalid, UnsupportedSource) as error:
                failures.append(error)
                tried.append(TriedSource(uri, problem=str(error)))
        return tuple(tried)


def _trust(entry: GalleryEntry) -> str:
    vouched = []
    if entry.gallery.verification is not None:
        vouched.append(f'images must be signed as gallery "{entry.gallery.name}" says')
    if entry.sha256:
        vouched.append(f"archives must have the SHA-256 {entry.sha256}")
    return "; ".join(vouched) or "nothing but its source"


def _shortage(sources: Sequence[TriedSource], disk: DiskSpace | None) -> str:
    estimate = sources[-1].estimate if sources else None
    if disk is None or estimate is None or estimate.disk_bytes <= disk.available_bytes:
        return ""
    return f"it needs about {estimate.disk_bytes} bytes of disk, {disk.available_bytes} are available"
