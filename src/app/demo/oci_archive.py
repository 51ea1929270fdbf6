"""A directory tree as a container image in one file, readable offline by every common tool."""

import gzip
import hashlib
import io
import json
import os
import platform
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from ...domain.errors import FileUnreadable, FileUnwritable, WorkerError

COPY_CHUNK_BYTES = 1 << 20

# Go's names (GOARCH), which image configs use, for what `platform.machine()` says.
GO_ARCHITECTURES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv7l": "arm",
}

# Repository and tag of the OCI distribution specification, the registry's host and port included.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})"
)


@dataclass(eq=False)
class ImageReferenceInvalid(WorkerError):
    """An image cannot be named like this."""

    reference: str

    def __str__(self) -> str:
        return f'image reference "{self.reference}" is not [host/]repository:tag in lower case'


def pack_image(tree: Path, archive: Path, reference: str) -> str:
    """Write `tree` as a one-layer image named `reference` into the tar file `archive`.

    The archive is an OCI image layout and carries docker's `manifest.json` over the same blobs, as
    `docker save` writes it since v25: `ocifile://` of LocalAI needs the latter (Source: LocalAI pkg/oci).
    The image is for this machine's system and architecture. Equal trees give equal bytes: entries are
    sorted, times and owners zero, modes 0755 or 0644. The file appears whole or not at all.

    Returns:
        The digest of the image manifest, `sha256:` and 64 hex digits.

    Raises:
        ImageReferenceInvalid: `reference` is no name for an image.
        FileUnreadable: `tree` is not a directory, or holds what is neither file, directory nor symlink.
        FileUnwritable: `archive` cannot be written; what was there before is untouched.
    """
    matched = _REFERENCE.fullmatch(reference)
    if matched is None:
        raise ImageReferenceInvalid(reference)
    entries = _entries(tree)
    with _appearing_whole(archive) as target, tempfile.TemporaryFile(dir=archive.parent) as layer:
        layer_blob, diff_id = _write_layer(entries, layer)
        config = _json(_image_config(diff_id))
        config_blob = Blob("application/vnd.oci.image.config.v1+json", _digest(config), len(config))
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": config_blob.descriptor(),
                "layers": [layer_blob.descriptor()],
            }
        )
        manifest_blob = Blob("application/vnd.oci.image.manifest.v1+json", _digest(manifest), len(manifest))
        names = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": matched["tag"]}
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                manifest_blob.descriptor() | {"annotations": names, "platform": _platform()},
            ],
        }
        docker = [{"Config": config_blob.path, "RepoTags": [reference], "Layers": [layer_blob.path]}]
        with tarfile.open(fileobj=target, mode="w") as tar:
            # Small files first: a reader of a stream then knows what the blobs are when they come.
            for name, content in {
                "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
                "index.json": _json(index),
                "manifest.json": _json(docker),
                manifest_blob.path: manifest,
                config_blob.path: config,
            }.items():
                tar.addfile(_entry(name, len(content)), io.BytesIO(content))
            layer.seek(0)
            tar.addfile(_entry(layer_blob.path, layer_blob.size_bytes), layer)
    return manifest_blob.digest


@dataclass(frozen=True)
class Blob:
    """A content-addressed part of an image."""

    media_type: str
    digest: str
    size_bytes: int

    @property
    def path(self) -> str:
        """Where the blob lies in an OCI image layout."""
        return f"blobs/{self.digest.replace(':', '/')}"

    def descriptor(self) -> dict[str, Any]:
        """How manifests and indexes refer to the blob."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes}


class _Hashing(io.RawIOBase):
    """Passes what is written on to `target`, counting and hashing it."""

    def __init__(self, target: BinaryIO | IO[bytes] | gzip.GzipFile) -> None:
        super().__init__()
        self._target = target
        self._sha256 = hashlib.sha256()
        self.size_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._sha256.update(data)
        self.size_bytes += len(data)
        self._target.write(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"


def _entries(tree: Path) -> list[tuple[tarfile.TarInfo, Path]]:
    """Tar entries of everything below `tree`, each directory before what it holds."""
    if not tree.is_dir():
        raise FileUnreadable(tree, "not a directory")
    return [(_tree_entry(path, path.relative_to(tree).as_posix()), path) for path in sorted(tree.rglob("*"))]


def _tree_entry(path: Path, name: str) -> tarfile.TarInfo:
    if path.is_symlink():
        entry = _entry(name, 0)
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
    elif path.is_dir():
        entry = _entry(name, 0)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    elif path.is_file():
        status = path.stat()
        entry = _entry(name, status.st_size)
        entry.mode = 0o755 if status.st_mode & 0o111 else 0o644
    else:
        raise FileUnreadable(path, "neither file, directory nor symlink; remove it")
    return entry


def _entry(name: str, size_bytes: int) -> tarfile.TarInfo:
    """A plain file of owner 0, time 0 and mode 0644."""
    entry = tarfile.TarInfo(name)
    entry.size = size_bytes
    return entry


def _write_layer(entries: list[tuple[tarfile.TarInfo, Path]], layer: IO[bytes]) -> tuple[Blob, str]:
    """Write the gzipped tar of `entries`; returns its blob and the digest of the tar before compression."""
    compressed = _Hashing(layer)
    # Level 1 takes a third of the default level's time for some 10 % more bytes; no name and no time inside.
    with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=compressed, mtime=0) as stream:
        plain = _Hashing(stream)
        with tarfile.open(fileobj=plain, mode="w|", bufsize=COPY_CHUNK_BYTES) as tar:
            for entry, path in entries:
                _add(tar, entry, path)
    blob = Blob("application/vnd.oci.image.layer.v1.tar+gzip", compressed.digest, compressed.size_bytes)
    return blob, plain.digest


def _add(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    if not entry.isreg():
        tar.addfile(entry)
        return
    try:
        content = path.open("rb")
    except OSError as error:
        raise FileUnreadable(path, str(error)) from error
    with content:
        try:
            tar.addfile(entry, content)
        except OSError as error:
            if error.errno is None:  # tarfile's own: fewer bytes came than the entry announces
                raise FileUnreadable(path, "it shrank while it was packed") from error
            raise


def _image_config(diff_id: str) -> dict[str, Any]:
    never = "1970-01-01T00:00:00Z"
    return _platform() | {
        "created": never,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": never, "created_by": "localai-worker"}],
    }


def _platform() -> dict[str, Any]:
    machine = platform.machine().lower()
    return {"architecture": GO_ARCHITECTURES.get(machine, machine), "os": sys.platform}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def _appearing_whole(file: Path) -> Iterator[IO[bytes]]:
    """A stream that becomes `file` at the end of the block, or vanishes when the block fails."""
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as partial:
            try:
                yield partial.file
                partial.flush()
                os.fsync(partial.fileno())
                Path(partial.name).chmod(0o644)
                Path(partial.name).replace(file)
            except BaseException:
                Path(partial.name).unlink()
                raise
    except OSError as error:
        raise FileUnwritable(file, str(error)) from error
