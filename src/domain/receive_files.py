"""What the frontend does with this node's files over HTTP: ask, send, fetch, list."""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from .content_range import ContentRange
from .errors import FileUnreadable, NoSpace, WorkerError
from .file_hashes import FileHashes, normal_sha256
from .file_names import hide_own_files
from .ports.filesystem import FileKind, FileStat, FileSystem, OutgoingFile, RootedPath
from .upload import BodyTooLong, BodyTooShort, Upload, UploadTooLarge
from .validate_paths import FileRoots, locate_key

UPLOAD_LIMIT_BYTES = 53_687_091_200  # 50 GiB, the upstream worker's hard-wired limit for one request
UPLOAD_MODE = 0o666  # less the umask, as Go's os.Create has it
HASH_ATTEMPTS = 3  # a file that changes while we hash it, three times in a row, is not at rest


@dataclass(eq=False)
class NamesDirectory(WorkerError):
    """A key names a directory where only a file will do."""

    path: Path

    def __str__(self) -> str:
        return f"{self.path} is a directory"


@dataclass(eq=False)
class InvalidHash(WorkerError):
    """A declared hash that no content can have."""

    declared: str

    def __str__(self) -> str:
        return f"X-Content-SHA256 {self.declared[:100]!a} is not 64 hex digits"


@dataclass(eq=False)
class RangeNotHeld(WorkerError):
    """An upload wants to go on from bytes that this worker does not hold; it must start again at 0."""

    range: ContentRange
    held_bytes: int = 0

    def __str__(self) -> str:
        sent = f"{self.range.start}-{self.range.end}/{self.range.total}"
        held = f"{self.held_bytes} bytes held"
        return f"Content-Range {sent} does not carry on from the {held}; send the whole file"


@dataclass(frozen=True, slots=True)
class ProbedFile:
    """A file the frontend asked about; `sha256` is None when it changes faster than it can be hashed."""

    size_bytes: int
    path: Path
    sha256: str | None


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
    hashes: FileHashes = field(init=False)

    def __post_init__(self) -> None:
        self.hashes = FileHashes(self.filesystem)

    async def prepare(self) -> None:
        """Create the three directories; call it before anybody can ask.

        Raises:
            FileUnwritable: one of them cannot be created.
        """
        for directory in (self.roots.models, self.roots.data, self.roots.staging):
            await self.filesystem.make_directory(directory)

    async def probe(self, key: str) -> ProbedFile | None:
        """Size, path and hash of the file at `key`; None when there is none.

        Raises:
            KeyRequired, InvalidKey, PathEscapes: see `locate_key`.
            NamesDirectory: a directory is there.
            FileUnreadable: it is no regular file, or not ours to read.
        """
        place = locate_key(key, self.roots)
        stat = await self._regular_file(place)
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
    ) -> Upload:
        """Start to receive the file `key`, as the request's headers announce it (empty ones say nothing).

        A range that is not the whole file is refused: partial files are not kept, and we never claim to
        hold one, so a client that resumes elsewhere starts again at 0 here.

        Raises:
            KeyRequired, InvalidKey, PathEscapes: see `locate_key`.
            InvalidHash: the declared hash is no SHA-256.
            InvalidContentRange: the range is no range.
            RangeNotHeld: the body would not be the whole file.
            BodyTooShort, BodyTooLong: the declared length is not that of the range.
            UploadTooLarge: the declared length is over the limit.
            NamesDirectory: a directory is there.
            NoSpace, FileUnwritable: it would not fit, or cannot be created.
        """
        place = locate_key(key, self.roots)
        sha256 = _declared(declared_sha256)
        length_bytes = _expected_length(
            length_bytes, ContentRange.parse(content_range) if content_range else None
        )
        if length_bytes is not None:
            await self._check_room(place, length_bytes)
        stat = await self.filesystem.locate(place)
        if stat is not None and stat.kind is FileKind.DIRECTORY:
            raise NamesDirectory(place.path)
        sink = await self.filesystem.open_incoming(place, mode=UPLOAD_MODE)
        return Upload(place, sink, self.hashes, sha256, length_bytes, self.max_upload_bytes)

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
        return await self.filesystem.create_empty(self.roots.staging, prefix="localai-output-", suffix=".tmp")

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

    async def _check_room(self, place: RootedPath, length_bytes: int) -> None:
        if self.max_upload_bytes is not None and length_bytes > self.max_upload_bytes:
            raise UploadTooLarge(length_bytes, self.max_upload_bytes)
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


def _expected_length(length_bytes: int | None, content_range: ContentRange | None) -> int | None:
    if content_range is None:
        return length_bytes
    if not content_range.is_whole:
        raise RangeNotHeld(content_range)
    if length_bytes is not None and length_bytes < content_range.total:
        raise BodyTooShort(length_bytes, content_range.total)
    if length_bytes is not None and length_bytes > content_range.total:
        raise BodyTooLong(content_range.total)
    return content_range.total
