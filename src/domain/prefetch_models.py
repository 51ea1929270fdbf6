"""Models that are fetched before the node registers."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from .errors import ArtifactUnavailable, GalleryUnreadable, WorkerError
from .galleries import Gallery
from .index_urls import document_url
from .install_model import InstallModel
from .model_entry import BaseDocument, InvalidModelEntry, ModelEntry, NoSuchModel, parse_size
from .model_plan import Payload, in_order, plan_model, record_path
from .model_variants import Variant, choose_variant, memory_budget_bytes
from .ports.downloads import Downloads, HostNames
from .ports.filesystem import RootedPath
from .ports.hardware import HardwareProbe
from .prefetch_progress import PrefetchProgress
from .public_hosts import require_public
from .read_galleries import ReadGalleries
from .yaml_values import YamlValue, typed

log = logging.getLogger(__name__)

_RECORD_LIMIT_BYTES = 1 << 20


@dataclass
class PrefetchModels:
    """Installs the models `ids` out of `galleries`, one after another, as `InstallModel` does.

    A model that cannot be installed costs a warning. So does a gallery that cannot be read, which holds up
    only the models that no other gallery has (upstream then installs nothing at all).
    Source: LocalAI core/services/worker/prefetch.go.
    """

    ids: Sequence[str]
    galleries: Sequence[Gallery]
    indexes: ReadGalleries
    installer: InstallModel
    downloads: Downloads
    names: HostNames
    hardware: HardwareProbe
    capability: str
    progress: PrefetchProgress = field(default_factory=PrefetchProgress)

    async def run(self) -> None:
        """Install what is missing; nothing that goes wrong with a model leaves this."""
        wanted = [name.strip() for name in self.ids if name.strip()]
        if not wanted:
            return
        if not self.galleries:
            log.warning(
                "models not prefetched, there are no galleries (LOCALAI_GALLERIES): %s", ", ".join(wanted)
            )
            self.progress.missing += wanted
            return
        await self.installer.snapshots.sweep()
        try:
            for number, name in enumerate(wanted, start=1):
                log.info("prefetching model %d of %d: %s", number, len(wanted), name)
                self.progress.fetching(name, number, len(wanted))
                if not await self._installed(name):
                    self.progress.missing.append(name)
            await self.installer.snapshots.sweep(ours=True)  # only now: what was needed is not there any more
        finally:
            self.progress.ended()

    async def _installed(self, name: str) -> bool:
        """Install one model; what went wrong is told, and costs this model only."""
        try:
            await self.install(name)
        except WorkerError as error:
            log.warning("model not prefetched: model=%s error=%s", name, error)
        except Exception:
            # A bug must not keep the node from its work: upstream's worker ends here at every boot.
            log.exception("model not prefetched: model=%s", name)
        else:
            log.info("model prefetched: model=%s", name)
            return True
        return False

    async def install(self, name: str) -> None:
        """Install one model.

        Raises:
            WorkerError: why it is not, or not wholly, there.
        """
        search = _Search(self.indexes, self.galleries)
        entry = await search.find(name)
        if not entry.variants:
            await self.installer.install(plan_model(entry, await self._payload(entry)))
            return
        pinned = await self._pinned(entry)
        chosen = await self._choose(entry, search, pinned)
        pin = pinned if chosen.name == pinned else ""
        await self.installer.install(plan_model(entry, await self._payload(chosen), pinned_variant=pin))

    async def _payload(self, entry: ModelEntry) -> Payload:
        """`entry` with the document its url leads to, or else its own configuration, as text and parsed."""
        documents = self.installer.documents
        if not entry.url:
            if entry.config is None:
                return Payload(entry)
            text = (await documents.write(in_order(entry.config))).decode()
            return Payload(entry, None, entry.config, text)
        await require_public(entry.url, self.names)
        content = await self._base(entry)
        document = BaseDocument.from_document(await documents.parse(content, url=entry.url), entry=entry.name)
        config = None
        if document.config_text.strip():
            parsed = typed(await documents.parse(document.config_text.encode(), url=entry.url))
            if not isinstance(parsed, dict):
                raise InvalidModelEntry(entry.name, "the configuration its url leads to is no mapping")
            config = parsed
        return Payload(entry, document, config, document.config_text)

    async def _base(self, entry: ModelEntry) -> bytes:
        """What the url of `entry` leads to; a `github:` one is first looked for beside a local gallery."""
        documents, root = self.installer.documents, self.installer.models_path
        url = entry.url
        if entry.gallery.url.startswith("file://") and url.startswith("github:"):
            sibling = url.rpartition("/")[2].partition("@")[0]
            local = f"{entry.gallery.url.rpartition('/')[0]}/{sibling}"
            try:
                found = await documents.fetch(local, trusted_root=root)
            except ArtifactUnavailable:
                found = None
            if found is not None:
                return found.content
        resolved = document_url(url, hugging_face=self.installer.hugging_face)
        fetched = await documents.fetch(resolved, trusted_root=root)
        assert fetched is not None, "only a known version can be unchanged"
        return fetched.content

    async def _choose(self, base: ModelEntry, search: "_Search", pinned: str) -> ModelEntry:
        others = []
        for name in base.variants:
            entry = await search.find(name)
            if entry.variants:
                raise InvalidModelEntry(base.name, f"its variant {entry.name} has variants of its own")
            others.append(entry)
        if pinned:
            kept = next((each for each in (base, *others) if each.name == pinned), None)
            if kept is not None:
                return kept
            log.warning("pinned variant is no longer offered: model=%s variant=%s", base.name, pinned)
        budget_bytes = memory_budget_bytes(self.capability, await self.hardware.read())
        chosen = choose_variant(
            await self._variant(base),
            [await self._variant(each) for each in others],
            capability=self.capability,
            budget_bytes=budget_bytes,
        )
        log.info("variant chosen: model=%s variant=%s", base.name, chosen.entry.name)
        return chosen.entry

    async def _variant(self, entry: ModelEntry) -> Variant:
        backend = entry.backend or _backend_in(entry.overrides) or _backend_in(entry.config)
        if not backend and entry.url:
            try:
                backend = _backend_in((await self._payload(entry)).config)
            except WorkerError as error:
                log.warning("backend of a variant is unknown: variant=%s error=%s", entry.name, error)
        sizes = [await self._size(each.uri) for each in entry.files if each.holds_weights]
        known = sum(sizes) if sizes and all(sizes) else 0
        return Variant(entry, backend, known or parse_size(entry.size))

    async def _size(self, uri: str) -> int:
        try:
            url = document_url(uri, hugging_face=self.installer.hugging_face)
        except WorkerError:
            return 0  # no web server to ask
        return await self.downloads.size(url) or 0

    async def _pinned(self, entry: ModelEntry) -> str:
        """The variant that an earlier record pins; "" without one."""
        filesystem, root = self.installer.filesystem, self.installer.models_path
        place = RootedPath(root, PurePosixPath(record_path(entry.name)))
        if await filesystem.locate(place) is None:
            return ""
        try:
            content = await filesystem.read(place.path, limit_bytes=_RECORD_LIMIT_BYTES)
            record = await self.installer.documents.parse(content, url=str(place.path))
        except WorkerError as error:
            log.warning("record unreadable: path=%s error=%s", place.path, error)
            return ""
        return str(record.get("pinned_variant") or "") if isinstance(record, dict) else ""


@dataclass
class _Search:
    """Finds entries by name over all galleries that can be read."""

    indexes: ReadGalleries
    galleries: Sequence[Gallery]

    async def find(self, name: str) -> ModelEntry:
        """The first entry in gallery and file order; see `GalleryIndexes.choose` for how names compare."""
        wanted = name.replace("/", "__").casefold()
        unreadable: GalleryUnreadable | None = None
        for gallery in self.galleries:
            try:
                index = await self.indexes.read(gallery)
            except GalleryUnreadable as error:
                unreadable = error
                continue
            prefix = f"{gallery.name}@".casefold() if "@" in wanted else ""
            if wanted.startswith(prefix) and (named := index.named(wanted.removeprefix(prefix))):
                return ModelEntry.from_mapping(named[0], replace(gallery, url=index.url))
        raise unreadable or NoSuchModel(name)


def _backend_in(config: Mapping[str, YamlValue] | None) -> str:
    backend = (config or {}).get("backend")
    return backend if isinstance(backend, str) else ""
