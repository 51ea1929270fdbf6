"""Archives on this machine's disk: tar, compressed or not, and zip."""

import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from anyio import from_thread, to_thread

from ...domain.errors import ArtifactInvalid, FileUnwritable, NoSpace
from ...domain.ports.filesystem import RootedPath

_CHUNK_BYTES = 1 << 20
_ZSTD = ".tar.zst", ".tzst"


@dataclass(frozen=True)
class _Entry:
    """A file to be: its checked name, its size, and how its content is opened. None: a directory."""

    name: str
    size_bytes: int
    open: Callable[[], IO[bytes]] | None


@dataclass(frozen=True)
class LocalArchives:
    """An `ArchiveUnpacker` that unpacks into a hidden directory and moves what is there when all of it is.

    `floor_bytes` of the disk stay free.
    """

    most_entries: int = 100_000
    most_bytes: int = 1 << 40
    floor_bytes: int = 0

    async def unpack(self, archive: RootedPath) -> None:
        """Runs in a worker thread, and notices a cancellation within one chunk."""
        await to_thread.run_sync(self._unpack, archive)

    def _unpack(self, archive: RootedPath) -> None:
        path = archive.path
        if not path.resolve().is_relative_to(archive.root.resolve()):
            raise ArtifactInvalid(str(path), "it lies outside of the models directory")
        try:
            with _opened(path, 2 * self.most_bytes) as entries:
                found = self._screened(path, entries)
                self._require_room(path, found)
                self._write(path, found)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise ArtifactInvalid(str(path), f"it is no sound archive: {error}") from error
        except RuntimeError as error:  # zip files with a password
            raise ArtifactInvalid(str(path), str(error)) from error
        except OSError as error:
            if error.errno is None:  # gzip, bz2 and lzma report bad data so
                raise ArtifactInvalid(str(path), f"it is no sound archive: {error}") from error
            raise FileUnwritable(path.parent, error.strerror or str(error)) from error

    def _screened(self, path: Path, entries: Iterator[_Entry]) -> list[_Entry]:
        found = []
        total_bytes = 0
        for entry in entries:
            from_thread.check_cancelled()
            found.append(entry)
            total_bytes += entry.size_bytes
            if len(found) > self.most_entries or total_bytes > self.most_bytes:
                limit = f"{self.most_entries} entries or {self.most_bytes} bytes"
                raise ArtifactInvalid(str(path), f"it holds more than {limit}")
        return found

    def _require_room(self, path: Path, entries: list[_Entry]) -> None:
        needed, free = sum(entry.size_bytes for entry in entries), shutil.disk_usage(path.parent).free
        if needed + self.floor_bytes > free:
            kept = f"{self.floor_bytes} must stay free (LOCALAI_WORKER_DISK_FLOOR)"
            raise NoSpace(path.parent, f"{needed} bytes are needed, {kept}, {free} are available")

    def _write(self, path: Path, entries: list[_Entry]) -> None:
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=path.parent) as private:
            top = Path(private)
            for entry in entries:
                target = top / entry.name
                if entry.open is None:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with entry.open() as source, target.open("xb") as file:
                    _copy(path, source, file, entry.size_bytes)
            _move(top, path.parent)


def _spool(path: Path, source: IO[bytes], file: IO[bytes], most_bytes: int) -> None:
    left = most_bytes
    while chunk := source.read(_CHUNK_BYTES):
        from_thread.check_cancelled()
        left -= len(chunk)
        if left < 0:
            raise ArtifactInvalid(str(path), f"it holds more than {most_bytes} bytes")
        file.write(chunk)
    file.seek(0)


def _copy(path: Path, source: IO[bytes], file: IO[bytes], size_bytes: int) -> None:
    left = size_bytes
    while chunk := source.read(min(_CHUNK_BYTES, left + 1)):
        from_thread.check_cancelled()
        left -= len(chunk)
        if left < 0:
            raise ArtifactInvalid(str(path), "an entry is larger than the archive says")
        file.write(chunk)
    if left:
        raise ArtifactInvalid(str(path), "an entry is shorter than the archive says")
    file.flush()
    os.fsync(file.fileno())


def _move(source: Path, target: Path) -> None:
    """Move everything in `source` into `target`, file by file; directories are merged."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir():
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                raise FileUnwritable(place, "something that is no directory is in its place")
            place.mkdir(mode=0o750, exist_ok=True)
            _move(entry, place)
        else:
            entry.replace(place)


@contextmanager
def _opened(path: Path, most_bytes: int) -> Iterator[Iterator[_Entry]]:
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as file:
            yield _zip_entries(path, file)
    elif path.name.lower().endswith(_ZSTD):
        try:
            import zstandard
        except ImportError as error:
            raise ArtifactInvalid(str(path), "it is compressed with zstd, and no library is there") from error
        with tempfile.TemporaryFile(dir=path.parent) as plain:
            try:
                with path.open("rb") as source, zstandard.ZstdDecompressor().stream_reader(source) as content:
                    _spool(path, content, plain, most_bytes)
            except zstandard.ZstdError as error:
                raise ArtifactInvalid(str(path), f"it is no sound archive: {error}") from error
            with tarfile.open(fileobj=plain) as tar:
                yield _tar_entries(path, tar)
    else:
        with tarfile.open(path) as tar:
            yield _tar_entries(path, tar)


def _zip_entries(path: Path, file: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in file.infolist():
        name = _checked(path, info.filename)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ArtifactInvalid(str(path), f"{info.filename!r} is a symlink")
        if info.is_dir():
            yield _Entry(name, 0, None)
        else:
            yield _Entry(name, info.file_size, lambda info=info: file.open(info))  # type: ignore[misc]


def _tar_entries(path: Path, tar: tarfile.TarFile) -> Iterator[_Entry]:
    for member in tar:
        name = _checked(path, member.name)
        if member.isdir():
            yield _Entry(name, 0, None)
        elif member.isreg() or member.islnk():
            if member.islnk():
                _checked(path, member.linkname)
            yield _Entry(name, _size(path, tar, member), lambda member=member: _content(path, tar, member))  # type: ignore[misc]
        else:
            kind = "a symlink" if member.issym() else "a device or pipe"
            raise ArtifactInvalid(str(path), f"{member.name!r} is {kind}")


def _size(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    try:
        return (tar.getmember(member.linkname) if member.islnk() else member).size
    except KeyError as error:
        raise ArtifactInvalid(str(path), f"{member.name!r} links to nothing") from error


def _content(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    if content is None:
        raise ArtifactInvalid(str(path), f"{member.name!r} links to no file")
    return content


def _checked(path: Path, name: str) -> str:
    if not name or name.startswith("/") or "\\" in name or "\0" in name or ":" in name.split("/")[0]:
        raise ArtifactInvalid(str(path), f"{name!r} is no relative path")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ArtifactInvalid(str(path), f"{name!r} leads out of its directory")
    return posixpath.join(*parts) if parts else "."
