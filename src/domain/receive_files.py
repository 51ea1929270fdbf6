"""What the frontend does with this node's files over HTTP: ask, send, fetch, list."""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from .content_range import ContentRange
from .errors import FileUnreadable, FileUnwritable, NoSpace
from .file_hashes import FileHashes, normal_sha256
from .file_names import hide_own_files
from .ports.filesystem import FileKind, FileStat, FileSystem, IncomingFile, OutgoingFile, RootedPath
from .prefetched_files import PrefetchedFiles
from .resume_upload import ResumeUploads
from .sweep_files import OUTPUT_PREFIX, OUTPUT_SUFFIX
from .upload import RangedUpload, Upload, WholeUpload
from .upload_errors import InvalidHash, NamesDirectory, UploadTooLarge
from .validate_paths import FileRoots, locate_key

UPLOAD_LIMIT_BYTES = 53_687_091_200  # 50 GiB, the upstream worker's hard-wired limit for one request
UPLOAD_MODE = 0o666  # less the umask, as Go's os.Create has it
ROOM_ASKED_FROM_BYTES = 1024 * 1024  # a smaller body costs less than the question
HASH_ATTEMPTS = 3  # a file that changes while we hash it, three times in a row, is not at rest


@dataclass(frozen=True, slots=True)
class ProbedFile:
    """A file the frontend asked about.

    `sha256` is None when it changes faster than it can be hashed, and of a file that is not whole yet:
    then `size_bytes` are those that came, and `target_sha256` what it will hash to.
    """

    size_bytes: int
    path: Path
    sha256: str | None
    target_sha256: str | None = None


@dataclass
class ReceiveFiles:
    """The file service of a node: the frontend's uploads in, backends' results out.

    A file appears whole or not at all: an upload that fails leaves the older file, and uploads of one
    key at the same time do not mix, the last one finished stays. A path handed out is the plain join of
    directory and key: the frontend cuts the key off its end to learn the model directory.

    Source: LocalAI core/services/nodes/file_transfer_server.go.
    """

    filesystem: FileSystem
    roots: FileRoots
    max_upload_bytes: int | None = UPLOAD_LIMIT_BYTES  # None: no limit but the disk's
    prefetched: PrefetchedFiles | None = None  # may have a file that the frontend asks for
    hashes: FileHashes = field(init=False)
    resumed: ResumeUploads = field(init=False)

    def __post_init__(self) -> None:
        self.hashes = FileHashes(self.filesystem)
        self.resumed = ResumeUploads(self.filesystem, self.hashes)

    async def prepare(self) -> None:
        """Create the three directories; call it before anybody can ask.

        Raises:
            FileUnwritable: one of them cannot be created.
        """
        for directory in (self.roots.models, self.roots.data, self.roots.staging):
            await self.filesystem.make_directory(directory)

    async def probe(self, key: str) -> ProbedFile | None:
        """Size, path and hash of the file at `key`; None when there is none.

        While an upload in pieces is not whole, it is told about and not the older file: the frontend goes
        on with it.

        Raises:
            KeyRequired, InvalidKey, PathEscapes: see `locate_key`.
            NamesDirectory: a directory is there.
            FileUnreadable, FileUnwritable: it is no regular file, or not ours to read.
        """
        place = locate_key(key, self.roots)
        held = await self.resumed.held(place)
        if held is not None:
            return ProbedFile(held.size_bytes, place.path, None, held.sha256)
        stat = await self._regular_file(place)
        if stat is None and self.prefetched is not None:
            supplied = await self.prefetched.supply(place)
            stat = None if supplied is None else await self._regular_file(place)
            if supplied and stat is not None:
                await self.hashes.learn(place, stat, supplied)
        for _ in range(HASH_ATTEMPTS):
            if stat is None:
                return None
            sha256 = await self.hashes.of(place, stat)
            if sha256 is not None:
                return ProbedFile(stat.size_bytes, place.path, sha256)
            stat = await self._regular_file(place)
        return None if stat is None else ProbedFile(stat.size_bytes, place.path, None)

    async def receive(
        self,
        key: str,
        *,
        declared_sha256: str | None = None,
        length_bytes: int | None = None,
        content_range: str | None = None,
    ) -> Upload | Path:
        """Start to receive the file `key`, as the request's headers announce it (empty ones say nothing).

        With a range the upload may come in pieces; its path is returned at once when the file with the
        declared hash is here already, and nothing needs to be sent. The caller tells `ended`.

        Raises:
            KeyRequired, InvalidKey, PathEscapes: see `locate_key`.
            InvalidHash: the declared hash is no SHA-256.
            InvalidContentRange: the range is no range.
            RangeNotHeld, OtherUploadHeld: see `ResumeUploads.start`.
            UploadTooLarge: the declared length is over the limit.
            NamesDirectory: a directory is there.
            NoSpace, FileUnwritable: it would not fit, or cannot be created.
        """
        place = locate_key(key, self.roots)
        sha256 = _declared(declared_sha256)
        span = ContentRange.parse(content_range) if content_range else None
        if span is None:
            if length_bytes is not None:
                await self._check_room(place, length_bytes, ask_from_bytes=ROOM_ASKED_FROM_BYTES)
            sink = await self._open(place)
            return WholeUpload(place, sink, self.hashes, sha256, length_bytes, self.max_upload_bytes)
        stat = await self.filesystem.locate(place)
        if stat is not None and stat.kind is FileKind.DIRECTORY:
            raise NamesDirectory(place.path)
        if sha256 and stat and sha256 == await self.hashes.known(place, stat):
            return place.path
        await self._check_room(place, span.end + 1 - span.start)
        return await self.resumed.start(place, span, sha256, mode=UPLOAD_MODE)

    def ended(self, upload: Upload) -> None:
        """Forget an upload that `receive` started and that is finished or aborted."""
        if isinstance(upload, RangedUpload):
            self.resumed.ended(upload)

    async def send(self, key: str) -> OutgoingFile | None:
        """Open the file at `key` for reading; None when there is none. The caller closes it.

        Raises:
            KeyRequired, InvalidKey, PathEscapes: see `locate_key`.
            NamesDirectory: a directory is there.
            FileUnreadable: it is no regular file, or not ours to read.
        """
        place = locate_key(key, self.roots)
        if await self._regular_file(place) is None:
            return None
        return await self.filesystem.open_outgoing(place)

    async def new_temporary(self) -> Path:
        """A fresh empty file for a backend to write a result to.

        It lies directly in staging: the frontend fetches it by its base name.

        Raises:
            NoSpace, FileUnwritable: it cannot be created.
        """
        await self.filesystem.make_directory(self.roots.staging)
        return await self.filesystem.create_empty(
            self.roots.staging, prefix=OUTPUT_PREFIX, suffix=OUTPUT_SUFFIX
        )

    async def list_files(self, key: str) -> tuple[PurePosixPath, ...] | None:
        """Every file below the directory `key`, relative to it, in walk order; None when there is none.

        What the worker keeps there for itself (hashes, files being received) is left out.

        Raises:
            KeyRequired, InvalidKey, PathEscapes: see `locate_key`.
            FileUnreadable: part of it is not ours to read; a list with holes would pass for complete.
        """
        paths = await self.filesystem.walk_files(locate_key(key, self.roots))
        return None if paths is None else hide_own_files(paths)

    async def _regular_file(self, place: RootedPath) -> FileStat | None:
        stat = await self.filesystem.locate(place)
        if stat is None:
            return None
        if stat.kind is FileKind.DIRECTORY:
            raise NamesDirectory(place.path)
        if stat.kind is not FileKind.FILE:
            raise FileUnreadable(place.path, "not a regular file")
        return stat

    async def _open(self, place: RootedPath) -> IncomingFile:
        try:
            return await self.filesystem.open_incoming(place, mode=UPLOAD_MODE)
        except FileUnwritable as error:
            stat = await self.filesystem.locate(place)
            if stat is not None and stat.kind is FileKind.DIRECTORY:
                raise NamesDirectory(place.path) from error
            raise

    async def _check_room(self, place: RootedPath, length_bytes: int, *, ask_from_bytes: int = 0) -> None:
        if self.max_upload_bytes is not None and length_bytes > self.max_upload_bytes:
            raise UploadTooLarge(length_bytes, self.max_upload_bytes)
        if length_bytes < ask_from_bytes:
            return
        space = await self.filesystem.space(place.path)
        if space is not None and length_bytes > space.available_bytes:
            need = f"{length_bytes} bytes needed, {space.available_bytes} available"
            raise NoSpace(place.path, f"{need}; free some and send the file again")


def _declared(header: str | None) -> str | None:
    if not header:
        return None
    sha256 = normal_sha256(header)
    if sha256 is None:
        raise InvalidHash(header)
    return sha256
