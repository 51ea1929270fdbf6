"""The files of a snapshot, verified, in a tree of their own."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import anyio

from .committed_snapshots import CommittedSnapshots, content_of
from .disk_room import DiskRoom
from .download_file import DownloadFile, WantedFile
from .errors import DownloadRefused, FileUnwritable, WorkerError
from .file_names import is_partial_directory_name
from .first_error import first_error
from .git_blob import git_blob
from .hub_files import file_url
from .ports.filesystem import FileSystem, OutgoingFile, RootedPath
from .ports.model_hub import HubFile
from .snapshot_layout import MANIFEST, SNAPSHOT
from .snapshot_manifest import Manifest, ManifestFile
from .snapshot_spec import SnapshotSpec

log = logging.getLogger(__name__)

# A gated repository tells its files to anybody, and gives them to none. By whether a token was shown.
_GATED = {
    False: "a gated repository wants a token: set HF_TOKEN, and source.token_env: HF_TOKEN in its entry",
    True: "does the token in HF_TOKEN open this repository?",
}
_UPSTREAMS_PARTS = ".downloads"  # where an upstream writer keeps what it has of files


@dataclass
class BuildSnapshot:
    """Fills trees below `models_path`, over `connections` connections at a time.

    What the tree has already counts if its content is right; so does what other versions of the repository
    have, which is shared and not copied. A download that breaks off leaves its part in the tree.
    """

    filesystem: FileSystem
    models_path: Path
    download: DownloadFile
    committed: CommittedSnapshots
    connections: int = 4

    async def build(
        self, spec: SnapshotSpec, files: Sequence[HubFile], tree: PurePosixPath, token: str
    ) -> Manifest:
        """Bring all `files` of the version that `spec` names into `tree`, and write the manifest beside them.

        Raises:
            NoSpace: they do not fit on the disk above its floor.
            ArtifactMissing, DownloadRefused, ArtifactUnavailable: a file cannot be had.
            ArtifactInvalid: a file is not what the hub says it is.
            PathEscapes, FileUnwritable, FileUnreadable: something cannot be written, or not be read again.
        """
        content = tree / SNAPSHOT
        known = await self.committed.contents(spec.repository)
        hashes: dict[str, str] = {}
        missing = []
        for file in files:
            place = self._place(content / file.path)
            if (sha256 := await self._hash_here(file, place, known)) is None:
                missing.append(file)
            else:
                hashes[file.path] = sha256
        log.info(
            "snapshot wanted: repository=%s files=%d there=%d bytes=%d",
            spec.repository,
            len(files),
            len(hashes),
            sum(file.size_bytes for file in missing),
        )
        await self._require_room(content, missing)
        await self._fetch_all(spec, missing, content, token, hashes)
        await self._remove_strays(tree, files)
        manifest = Manifest(spec, tuple(ManifestFile(file, hashes[file.path]) for file in files))
        await self.filesystem.write(self._place(tree / MANIFEST).path, manifest.to_json())
        return manifest

    async def _hash_here(
        self, file: HubFile, place: RootedPath, known: dict[tuple[str, int], RootedPath]
    ) -> str | None:
        """The SHA-256 of `file` if it is in the tree, or could be shared from another version; else None."""
        there = await self.filesystem.locate(place)
        elsewhere = known.get(content_of(file))
        if there is None and elsewhere is not None:
            try:
                await self.filesystem.share(elsewhere, place)
            except WorkerError as error:  # then it is fetched
                log.info("file of another version not shared: path=%s error=%s", place.path, error)
        sha256 = await self._verified(file, place)
        if sha256 is None and there is not None:
            await self.filesystem.remove_tree(place.path)
        return sha256

    async def _verified(self, file: HubFile, place: RootedPath) -> str | None:
        """The SHA-256 of what is at `place`; None unless it is `file`, whole and right."""
        try:
            opened = await self.filesystem.open_outgoing(place)
            if opened is None:
                return None
            try:
                return await _right_hash(file, opened)
            finally:
                await opened.close()
        except WorkerError:
            return None  # a directory, or not ours to read

    async def _fetch_all(
        self,
        spec: SnapshotSpec,
        files: Sequence[HubFile],
        content: PurePosixPath,
        token: str,
        hashes: dict[str, str],
    ) -> None:
        waiting = iter(files)

        async def fetch_some(download: DownloadFile) -> None:
            for file in waiting:
                wanted = _wanted(spec, file, token)
                place = self._place(content / file.path)
                try:
                    hashes[file.path] = await download.fetch_wanted(wanted, place)
                except DownloadRefused as error:
                    raise DownloadRefused(error.uri, f"{error.reason}; {_GATED[bool(token)]}") from error
                log.debug("file of a snapshot is there: repository=%s path=%s", spec.repository, file.path)

        try:
            async with self.download.together() as download, anyio.create_task_group() as tasks:
                for _ in range(min(self.connections, len(files))):
                    tasks.start_soon(fetch_some, download)
        except BaseExceptionGroup as group:
            raise first_error(group) from group

    async def _require_room(self, content: PurePosixPath, files: Sequence[HubFile]) -> None:
        wanted_bytes = 0
        for file in files:
            kept = await self.filesystem.find_partial(self._place(content / file.path))
            here_bytes = kept.size_bytes if kept is not None and kept.sha256 == file.lfs_sha256 else 0
            wanted_bytes += max(0, file.size_bytes - here_bytes)
        room = DiskRoom(self.filesystem, self.models_path, self.download.floor_bytes)
        await room.require(wanted_bytes, "the snapshot")

    async def _remove_strays(self, tree: PurePosixPath, files: Sequence[HubFile]) -> None:
        """Remove what earlier attempts, or other writers, left in `tree` that is no part of the snapshot.

        Raises:
            FileUnwritable: two of the files are one here.
        """
        wanted = {PurePosixPath(SNAPSHOT) / file.path for file in files}
        names = {*(await self.filesystem.walk_files(self._place(tree)) or ())}
        if lost := sorted(wanted - names):
            path = self._place(tree / lost[0]).path
            raise FileUnwritable(path, "it is gone; does this file system take names of other case for one?")
        strays = names - wanted - {PurePosixPath(MANIFEST)}
        for name in strays:
            await self.filesystem.remove_tree(self._place(tree / name).path)
        for directory in {name.parent for name in strays}:
            if is_partial_directory_name(directory.name) or directory.name == _UPSTREAMS_PARTS:
                await self.filesystem.remove_tree(self._place(tree / directory).path)

    def _place(self, path: PurePosixPath) -> RootedPath:
        return RootedPath(self.models_path, path)


def _wanted(spec: SnapshotSpec, file: HubFile, token: str) -> WantedFile:
    found = spec.resolved
    assert found is not None, "a version was found first"
    return WantedFile(
        url=file_url(found.endpoint, spec.repository, found.revision, file.path),
        sha256=file.lfs_sha256,
        size_bytes=file.size_bytes,
        token=token,
        blob_id="" if file.lfs_sha256 else file.blob_id,
    )


async def _right_hash(file: HubFile, opened: OutgoingFile) -> str | None:
    """The SHA-256 of the open content if it is that of `file`; else None."""
    if opened.size_bytes != file.size_bytes:
        return None
    if file.lfs_sha256:
        sha256 = await opened.sha256()
        return sha256 if sha256 == file.lfs_sha256 else None
    blob, content = git_blob(file.size_bytes), hashlib.sha256()
    async for chunk in opened.chunks():
        blob.update(chunk)
        content.update(chunk)
    return content.hexdigest() if blob.hexdigest() == file.blob_id else None
