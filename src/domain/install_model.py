"""Installing models from galleries: files, prompt templates, configuration and a record of it all."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import anyio

from .bind_snapshots import BindSnapshots
from .download_file import DownloadFile
from .errors import ArtifactUnavailable, UnsupportedSource, WorkerError
from .image_reference import names_image
from .index_urls import HUGGING_FACE, document_url
from .model_entry import ModelFile
from .model_plan import ModelPlan, below_models, in_order
from .ollama import OLLAMA_REGISTRY, ollama_blob, ollama_manifest_url
from .ports.archives import ArchiveUnpacker, is_archive
from .ports.artifacts import ArtifactSource
from .ports.filesystem import FileKind, FileSystem, RootedPath
from .ports.galleries import GalleryDocuments
from .prefetched_files import PrefetchedFiles

log = logging.getLogger(__name__)

_WEB = ("http://", "https://", "github:", "huggingface://", "hf://", "hf.co/")
_IMAGE_FILE, _OLLAMA, _LOCAL = "ocifile://", "ollama://", "file://"
_SOURCES = ("https://", "http://", "huggingface://", "hf://", "github:", "oci://", _IMAGE_FILE, _OLLAMA)


@dataclass
class InstallModel:
    """Puts models into `models_path`, as an upstream worker would, and no path outside of it.

    A file that is there with the right hash, or any file where no hash is known, is kept. Everything
    appears whole; a failure stops, and what came before it stays.
    Source: LocalAI core/gallery/models.go, InstallModel.
    """

    filesystem: FileSystem
    models_path: Path
    documents: GalleryDocuments
    download: DownloadFile
    artifacts: ArtifactSource
    archives: ArchiveUnpacker
    prefetched: PrefetchedFiles
    snapshots: BindSnapshots
    hugging_face: str = HUGGING_FACE
    ollama: str = OLLAMA_REGISTRY
    cleanup_s: float = 30.0

    async def install(self, plan: ModelPlan) -> None:
        """Write what `plan` says: files in their order, templates, the model's YAML, and the record.

        A plan without files may want whole repositories instead: see `BindSnapshots`.

        Raises:
            WorkerError: what could not be fetched or written.
        """
        await self.filesystem.make_directory(self.models_path)
        config = plan.config
        if config is not None and not plan.files:
            config = in_order(await self.snapshots.bind(plan.name, config))
        for file in plan.files:
            await self._put_file(file)
        for template in plan.templates:
            await self._write(below_models(f"{template.name}.tmpl"), template.content.encode())
        if config is not None:
            await self._write(plan.config_path, await self.documents.write(config))
        await self._write(plan.record_path, await self.documents.write(plan.record()))

    async def _put_file(self, file: ModelFile) -> None:
        place = RootedPath(self.models_path, below_models(file.filename))
        if file.uri.startswith(_IMAGE_FILE) or (not file.uri.startswith(_WEB) and names_image(file.uri)):
            await self._put_image(file.uri, place)
            return
        archive = _archive_note(file, place)
        if await self._is_there(file, place):
            log.info("model file is there: path=%s", place.path)
            if archive is not None and await self.filesystem.locate(archive) is not None:
                await self._unpack(place, archive)
            return
        url, sha256 = await self._address(file)
        log.info("model file wanted: path=%s source=%s", place.path, file.uri)
        if archive is not None:
            await self.filesystem.make_directory(archive.path.parent)
            await self.filesystem.write_note(archive, b"")
        try:
            found = await self.download.fetch(url, place, sha256=sha256)
        except WorkerError:
            if archive is not None:
                await self.filesystem.remove_file(archive)
            raise
        await self._remember(place, found)
        if archive is not None:
            await self._unpack(place, archive)

    async def _unpack(self, place: RootedPath, note: RootedPath) -> None:
        """Unpack the archive at `place`; the note says until then that it was not."""
        await self.archives.unpack(place)
        await self.filesystem.remove_file(note)

    async def _remember(self, place: RootedPath, sha256: str) -> None:
        stat = await self.filesystem.locate(place)
        self.prefetched.add(place.relative, sha256, as_of_ns=0 if stat is None else stat.modified_ns)

    async def _is_there(self, file: ModelFile, place: RootedPath) -> bool:
        found = await self.filesystem.locate(place)
        if found is None or found.kind is not FileKind.FILE:
            return False
        if not file.sha256:
            self.prefetched.add(place.relative)
            return True
        opened = await self.filesystem.open_outgoing(place)
        if opened is None:
            return False
        try:
            sha256 = await opened.sha256()
        finally:
            await opened.close()
        if sha256 != file.sha256.lower():
            return False
        self.prefetched.add(place.relative, sha256, as_of_ns=found.modified_ns)
        return True

    async def _address(self, file: ModelFile) -> tuple[str, str]:
        """Where to fetch the file, and its hash."""
        if file.uri.startswith(_LOCAL):
            raise ArtifactUnavailable(
                file.uri, "files of a model come from web servers; put it there yourself"
            )
        if file.uri.startswith(_OLLAMA):
            manifest_url = ollama_manifest_url(file.uri, self.ollama)
            manifest = await self.documents.fetch(manifest_url, trusted_root=self.models_path)
            assert manifest is not None, "only a known version can be unchanged"
            return ollama_blob(file.uri, manifest.content, self.ollama)
        try:
            return document_url(file.uri, hugging_face=self.hugging_face), file.sha256
        except UnsupportedSource as error:
            raise UnsupportedSource(file.uri, supported=_SOURCES) from error

    async def _put_image(self, uri: str, place: RootedPath) -> None:
        """Unpack an image into a directory of the file's name.

        Upstream unpacks one whose name has an extension over the directory around it.
        """
        await self.filesystem.locate(place)  # a link that leads out is refused before anything is made there
        await self.filesystem.make_directory(place.path.parent)
        private = await self.filesystem.private_directory(place.path)
        try:
            await self.artifacts.fetch(uri, private)
            await self.filesystem.replace_directory(private, place.path)
        finally:
            with anyio.move_on_after(self.cleanup_s, shield=True):  # also when we are cancelled
                await self.filesystem.remove_tree(private)

    async def _write(self, path: PurePosixPath, content: bytes) -> None:
        file = await self.filesystem.open_incoming(RootedPath(self.models_path, path))
        try:
            await file.write(content)
            await file.publish()
        finally:
            with anyio.move_on_after(self.cleanup_s, shield=True):
                await file.discard()


def _archive_note(file: ModelFile, place: RootedPath) -> RootedPath | None:
    """What stands beside an archive from before it is fetched until it is unpacked; None for other files.

    Upstream never unpacks an archive again whose unpacking failed or was cut short.
    """
    if not is_archive(file.filename):
        return None
    digest = hashlib.sha256(place.relative.name.encode("utf-8", "surrogatepass")).hexdigest()
    return RootedPath(place.root, place.relative.with_name(f".packed-{digest[:16]}"))
