"""Reading gallery indexes: from the gallery or a mirror, from memory, or as they last were on disk."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import anyio

from .errors import (
    ArtifactInvalid,
    ArtifactUnavailable,
    FileUnreadable,
    FileUnwritable,
    GalleryUnreadable,
    UnsupportedSource,
    WorkerError,
)
from .galleries import Gallery
from .index_urls import HUGGING_FACE, document_url, is_reference, referred_url
from .keyed_locks import KeyedLocks
from .masking import mask_url
from .ports.filesystem import FileSystem
from .ports.galleries import GalleryDocuments

log = logging.getLogger(__name__)

_LARGEST_COPY_BYTES = 64 << 20
_MOST_REMEMBERED = 32  # requests may bring galleries of their own


@dataclass(frozen=True)
class GalleryIndex:
    """The entries of a gallery, in file order.

    `url` is the gallery's as configured, or the one that its reference (`.ref`) led to.
    """

    url: str
    entries: Sequence[Mapping[str, object]]

    def named(self, name: str) -> Sequence[Mapping[str, object]]:
        """The entries of this name (case-folded), in their order."""
        return self._by_name.get(name, ())

    @cached_property
    def _by_name(self) -> Mapping[str, Sequence[Mapping[str, object]]]:
        found: dict[str, list[Mapping[str, object]]] = {}
        for entry in self.entries:
            if isinstance(name := entry.get("name"), str):
                found.setdefault(name.casefold(), []).append(entry)
        return found


@dataclass(frozen=True, slots=True)
class _Remembered:
    """An index as a source gave it; `source` is the resolved url."""

    index: GalleryIndex
    source: str
    version: str
    fresh_until_s: float


@dataclass
class ReadGalleries:
    """Reads the indexes of galleries for all who ask, each gallery once at a time.

    The gallery's url is tried first, then its mirrors in order, `source_s` seconds each. One that fails is
    passed over for `cool_down_s` while there are others. What came over the network is taken as it is for
    `fresh_s`, then only asked whether it has changed; local files are looked at every time. The last good
    index stays in `copies` on disk and is used while no server answers; a local file that is broken is told.
    Source: LocalAI core/gallery/gallery_mirrors.go.

    Attributes:
        trusted_root: `file://` indexes must lie below it.
        copies: where the copies lie; None keeps none.
        hugging_face: what `huggingface://` urls stand for.
    """

    documents: GalleryDocuments
    filesystem: FileSystem
    trusted_root: Path
    copies: Path | None = None
    hugging_face: str = HUGGING_FACE
    source_s: float = 120.0
    cool_down_s: float = 600.0
    fresh_s: float = 3600.0
    _locks: KeyedLocks[Gallery] = field(default_factory=KeyedLocks, init=False)
    _remembered: dict[Gallery, _Remembered] = field(default_factory=dict, init=False)
    _cool_until_s: dict[str, float] = field(default_factory=dict, init=False)

    async def read(self, gallery: Gallery) -> GalleryIndex:
        """The index of `gallery`.

        Raises:
            GalleryUnreadable: no source gave one, and there is no copy of an earlier one.
        """
        async with self._locks.hold(gallery):
            remembered = self._remembered.get(gallery)
            if remembered is not None and anyio.current_time() < remembered.fresh_until_s:
                return remembered.index
            return await self._read(gallery, remembered)

    async def _read(self, gallery: Gallery, remembered: _Remembered | None) -> GalleryIndex:
        candidates = [url for url in dict.fromkeys((gallery.url, *gallery.mirrors)) if url]
        now_s = anyio.current_time()
        cool = [url for url in candidates if self._cool_until_s.get(url, 0.0) > now_s]
        if len(cool) == len(candidates) and (copy := await self._copy(gallery)) is not None:
            return copy
        skipped = set(cool) if len(cool) < len(candidates) else set()
        last: WorkerError | None = None
        for url in candidates:
            if url in skipped:
                continue
            try:
                read = await self._from_source(url, gallery, remembered)
            except (ArtifactUnavailable, ArtifactInvalid, UnsupportedSource) as error:
                last = error
                self._cool_down(url)
                log.warning("gallery source failed: gallery=%s error=%s", gallery.name, mask_url(str(error)))
                continue
            self._cool_until_s.pop(url, None)
            self._remember(gallery, read)
            return read.index
        if (copy := await self._copy(gallery)) is not None:
            return copy
        raise GalleryUnreadable(
            gallery.name,
            mask_url(gallery.url),
            f"all {len(candidates) - len(skipped)} source(s) failed ({len(candidates)} configured, "
            f"{len(skipped)} skipped as recently failed) and no cached copy exists, "
            f"last error: {mask_url(str(last or 'the gallery has no url'))}",
        ) from last

    def _cool_down(self, url: str) -> None:
        now_s = anyio.current_time()
        self._cool_until_s = {
            each: until_s for each, until_s in self._cool_until_s.items() if until_s > now_s
        }
        if not url.startswith("file://"):  # whether one is there again costs nothing to find out
            self._cool_until_s[url] = now_s + self.cool_down_s

    def _remember(self, gallery: Gallery, read: _Remembered) -> None:
        self._remembered.pop(gallery, None)  # to the end: the one read longest ago is forgotten first
        if read.index.entries:
            self._remembered[gallery] = read
        while len(self._remembered) > _MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    async def _from_source(self, url: str, gallery: Gallery, remembered: _Remembered | None) -> _Remembered:
        with anyio.move_on_after(self.source_s):
            return await self._fetch(url, gallery, remembered)
        raise ArtifactUnavailable(mask_url(url), f"it took longer than {self.source_s:g} s")

    async def _fetch(self, url: str, gallery: Gallery, remembered: _Remembered | None) -> _Remembered:
        source = document_url(url, hugging_face=self.hugging_face)
        told_url = gallery.url
        if is_reference(url):
            reference = await self.documents.fetch(source, trusted_root=self.trusted_root)
            assert reference is not None, "only a known version can be unchanged"
            told_url = source = referred_url(source, reference.content)
        same = remembered if remembered is not None and remembered.source == source else None
        known = same.version if same else ""
        document = await self.documents.fetch(source, trusted_root=self.trusted_root, known=known)
        fresh_until_s = anyio.current_time() + (0.0 if source.startswith("file://") else self.fresh_s)
        if document is None:
            assert same is not None, "only a known version can be unchanged"
            return _Remembered(same.index, source, known, fresh_until_s)
        entries = _entries(await self.documents.parse(document.content, url=source), source)
        if entries:
            await self._keep_copy(gallery, document.content)
        return _Remembered(GalleryIndex(told_url, entries), source, document.version, fresh_until_s)

    async def _keep_copy(self, gallery: Gallery, content: bytes) -> None:
        if (path := self._copy_path(gallery)) is None:
            return
        try:
            await self.filesystem.make_directory(path.parent)
            await self.filesystem.write(path, content)
        except FileUnwritable as error:  # the index is there all the same
            log.warning("gallery copy not kept: gallery=%s error=%s", gallery.name, error)

    async def _copy(self, gallery: Gallery) -> GalleryIndex | None:
        path = self._copy_path(gallery)
        if all(url.startswith("file://") for url in (gallery.url, *gallery.mirrors)):
            return None
        if path is None or await self.filesystem.stat(path) is None:
            return None
        try:
            content = await self.filesystem.read(path, limit_bytes=_LARGEST_COPY_BYTES)
            entries = _entries(await self.documents.parse(content, url=str(path)), str(path))
        except (FileUnreadable, ArtifactInvalid) as error:
            log.warning("gallery copy unusable: gallery=%s error=%s", gallery.name, error)
            return None
        log.warning("gallery read from its last good copy: gallery=%s path=%s", gallery.name, path)
        return GalleryIndex(gallery.url, entries)

    def _copy_path(self, gallery: Gallery) -> Path | None:
        if self.copies is None or not gallery.url:
            return None
        return self.copies / f"{hashlib.sha256(gallery.url.encode()).hexdigest()}.yaml"


def _entries(document: object, url: str) -> Sequence[Mapping[str, object]]:
    """The entries of an index.

    Raises:
        ArtifactInvalid: it is not one list of mappings.
    """
    if not isinstance(document, list):
        raise ArtifactInvalid(url, "a gallery index is a YAML list of entries, this is none")
    for number, entry in enumerate(document, start=1):
        if not isinstance(entry, dict):
            raise ArtifactInvalid(url, f"entry {number} is no mapping")
    return document
