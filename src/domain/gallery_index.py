"""Gallery entries, and which of them a requested name means on this host."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from .backend import BackendName, parse_backend_name
from .capability import choose, misfit
from .errors import WorkerError
from .galleries import Gallery
from .messages.error_text import go_quote
from .read_galleries import GalleryIndex, ReadGalleries


@dataclass(eq=False)
class NoSuchBackend(WorkerError):
    """No gallery has an entry of this name that runs on this host."""

    name: str

    def __str__(self) -> str:
        return f"no backend found with name {go_quote(self.name)}"


@dataclass(eq=False)
class NoBackendForHost(WorkerError):
    """A meta backend names a concrete one for this host that no gallery has, or none at all."""

    entry: "GalleryEntry"
    target: str

    def __str__(self) -> str:
        builds = sorted(self.entry.capabilities.items())
        pairs = " ".join(f"{go_quote(key)}:{go_quote(name)}" for key, name in builds)
        wanted = f"{go_quote(self.target)}, which no gallery has for it" if self.target else "nothing"
        leads = f"{_origin(self.entry)} has for this node {wanted}"
        return f"no backend found with capabilities map[{pairs}]: {leads}"


@dataclass(eq=False)
class NestedMetaBackend(WorkerError):
    """A meta backend leads to another one, or to itself."""

    entry: "GalleryEntry"
    target: str

    def __str__(self) -> str:
        leads = f"{_origin(self.entry)} leads to {go_quote(self.target)}, which is one too"
        return f"meta backends cannot be installed directly: {leads}"


@dataclass(eq=False)
class EmptyBackendName(WorkerError):
    """A request that names no backend."""

    def __str__(self) -> str:
        return "backend name is empty"


@dataclass(eq=False)
class InvalidGalleryEntry(WorkerError):
    """An entry of a gallery that cannot be used; the others can."""

    gallery: str
    entry: str
    reason: str

    def __str__(self) -> str:
        return f'entry "{self.entry}" of gallery "{self.gallery}" is invalid: {self.reason}'


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryEntry:
    """What a gallery offers under one name: a payload, or (meta) a choice of other entries by host.

    `gallery` is the one it comes from, by the url its index was found at. `sources` has the payload's uri
    and its mirrors, in the order to try them. `sha256` is of a payload that is no image.
    Source: LocalAI core/gallery/backend_types.go.
    """

    name: BackendName
    gallery: Gallery
    alias: str = ""
    version: str = ""
    uri: str = ""
    sha256: str = ""
    mirrors: tuple[str, ...] = ()
    capabilities: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_meta(self) -> bool:
        return bool(self.capabilities) and not self.uri

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.uri, *self.mirrors)

    @classmethod
    def from_mapping(cls, fields: Mapping[str, object], gallery: Gallery) -> Self:
        """The entry as the index wrote it; unknown keys are ignored, absent ones are empty.

        Raises:
            InvalidGalleryEntry: a field is not of its type.
            UnsafeBackendName: its name cannot be a directory's.
        """
        name = str(fields.get("name", ""))

        def invalid(key: str, wanted: str) -> InvalidGalleryEntry:
            return InvalidGalleryEntry(gallery.name, name, f"{key} is {fields[key]!r}, not {wanted}")

        def text(key: str) -> str:
            value = fields.get(key, "")
            if not isinstance(value, str):
                raise invalid(key, "a text")
            return value

        mirrors = fields.get("mirrors") or []
        if not isinstance(mirrors, list) or not all(isinstance(mirror, str) for mirror in mirrors):
            raise invalid("mirrors", "a list of texts")
        capabilities = fields.get("capabilities") or {}
        if not isinstance(capabilities, dict) or not all(
            isinstance(part, str) for pair in capabilities.items() for part in pair
        ):
            raise invalid("capabilities", "a map of texts")
        return cls(
            name=parse_backend_name(text("name")),
            gallery=gallery,
            alias=text("alias"),
            version=text("version"),
            uri=text("uri"),
            sha256=text("sha256"),
            mirrors=tuple(mirrors),
            capabilities=capabilities,
        )


@dataclass(frozen=True, slots=True)
class GalleryChoice:
    """What a requested name means: `concrete` has the payload, and is `requested` itself unless meta."""

    requested: GalleryEntry
    concrete: GalleryEntry


@dataclass(frozen=True, slots=True)
class Considered:
    """An entry that a search came across under the name it looked for. `why_not` is "" for the one taken."""

    entry: GalleryEntry
    why_not: str = ""


def _unnoted(_: Considered) -> None:
    """For those who only want the outcome."""


@dataclass
class GalleryIndexes:
    """Finds entries in galleries, for a host of `capability`.

    Galleries are read in order and only as far as needed; an unreadable one fails the search, because
    a later gallery must not answer for it. Entries that do not run on this host count as absent.
    """

    galleries: ReadGalleries
    capability: str

    async def choose(
        self, name: str, galleries: Sequence[Gallery], note: Callable[[Considered], None] = _unnoted
    ) -> GalleryChoice:
        """The entry that `name` means, first in gallery and file order, letter case ignored.

        `name` is an entry's name, or `<gallery>@<entry>`; `/` in it reads as `__`. Aliases are not names.
        A meta entry's concrete one is looked for in all galleries. `note` is told of every entry looked at.
        Source: LocalAI core/gallery/backends.go, core/gallery/models.go (FindGalleryElement).

        Raises:
            EmptyBackendName, NoSuchBackend, NoBackendForHost, NestedMetaBackend, InvalidGalleryEntry,
            UnsafeBackendName, GalleryUnreadable.
        """
        if not name:
            raise EmptyBackendName
        wanted = name.replace("/", "__").casefold()
        reading = _Reading(self.galleries, galleries, note)
        requested = await self._first(reading, wanted, qualified="@" in wanted)
        if requested is None:
            raise NoSuchBackend(name)
        if not requested.is_meta:
            return GalleryChoice(requested, requested)
        build = choose(self.capability, requested.capabilities)
        target = requested.capabilities[build] if build is not None else ""
        concrete = await self._first(reading, target.casefold()) if target else None
        if concrete is None:
            raise NoBackendForHost(requested, target)
        if concrete.is_meta:
            raise NestedMetaBackend(requested, concrete.name)
        return GalleryChoice(requested, concrete)

    async def _first(
        self, reading: "_Reading", wanted: str, *, qualified: bool = False
    ) -> GalleryEntry | None:
        """The first entry for this host that is called `wanted` (case-folded)."""
        for gallery in reading.galleries:
            prefix = f"{gallery.name}@".casefold() if qualified else ""
            if not wanted.startswith(prefix):
                continue
            index = await reading.index(gallery)
            for fields in index.named(wanted.removeprefix(prefix)):
                entry = GalleryEntry.from_mapping(fields, replace(gallery, url=index.url))
                builds = entry.capabilities if entry.is_meta else None
                why_not = misfit(self.capability, name=entry.name, uri=entry.uri, builds=builds)
                reading.note(Considered(entry, why_not))
                if not why_not:
                    return entry
        return None


def _origin(entry: GalleryEntry) -> str:
    return f"{go_quote(entry.name)} of gallery {go_quote(entry.gallery.name)}"


@dataclass
class _Reading:
    """The indexes of one search, each read once, when first needed."""

    reader: ReadGalleries
    galleries: Sequence[Gallery]
    note: Callable[[Considered], None]
    _indexes: dict[Gallery, GalleryIndex] = field(default_factory=dict)

    async def index(self, gallery: Gallery) -> GalleryIndex:
        """The index of `gallery`, as this search reads it."""
        if gallery not in self._indexes:
            self._indexes[gallery] = await self.reader.read(gallery)
        return self._indexes[gallery]
