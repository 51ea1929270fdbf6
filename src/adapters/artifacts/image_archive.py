"""A tar file that holds one image, as `docker save` and OCI tools write it."""

import posixpath
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from ...domain.errors import ArtifactInvalid
from .forward_reader import ForwardReader
from .image_manifest import (
    choose_manifest,
    field_of,
    parse_document,
    parse_manifest,
    texts,
)
from .streams import ByteReader, FileSection, HashingReader
from .tar_members import TarMembers

_DOCUMENT_BYTES = 4 << 20  # as registries limit manifests
_MEMBERS = 100_000
_NESTED = 4
_SHA256_NAME = re.compile(r"([0-9a-f]{64})(\.json)?")
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class ArchivedLayer:
    """One layer: where it lies in the archive and what vouches for it (one of the two is "").

    `digest` is of the bytes as stored, `diff_id` of the tar stream inside.
    """

    name: str
    size_bytes: int
    digest: str = ""
    diff_id: str = ""


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """The image in an archive; `digest` is its manifest's, "" where it has none. Lowest layer first."""

    digest: str
    layers: tuple[ArchivedLayer, ...]

    @property
    def size_bytes(self) -> int:
        """Of all layers as they are stored."""
        return sum(layer.size_bytes for layer in self.layers)


class ImageArchive:
    """Names and places of everything in the tar file `file`, which stays open as long as this is used.

    Reading the archive raises ArtifactInvalid wherever it is not what it claims.
    """

    def __init__(
        self, file: BinaryIO, size_bytes: int, *, uri: str, check_cancelled: Callable[[], None]
    ) -> None:
        self._file = file
        self._uri = uri
        self._check_cancelled = check_cancelled
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self._list(size_bytes)

    def image(self, platform: str) -> ArchivedImage:
        """The one image inside; of several platforms the given one (`linux/amd64`).

        An OCI layout is preferred to the docker form of the same image: its digests cover everything.
        """
        if "index.json" in self._places:
            return self._oci_image(platform)
        if "manifest.json" in self._places:
            return self._docker_image()
        raise ArtifactInvalid(self._uri, "neither index.json (OCI) nor manifest.json (docker save) is in it")

    def open(self, name: str) -> ByteReader:
        """The bytes of a member, links inside the archive followed (docker save shares layers by them)."""
        return self._section(name)[0]

    def _list(self, size_bytes: int) -> None:
        section = self._file_section(0, size_bytes)
        head = section.read(len(_GZIP_MAGIC))
        if head == _GZIP_MAGIC:
            raise ArtifactInvalid(self._uri, "the archive as a whole is compressed; unzip it first")
        section = self._file_section(0, size_bytes)
        reader = ForwardReader(section, limit_bytes=size_bytes, uri=self._uri, skip=section.skip)
        for count, member in enumerate(TarMembers(reader, what="the archive", uri=self._uri)):
            if count >= _MEMBERS:
                raise ArtifactInvalid(self._uri, f"more than {_MEMBERS} members for a single image")
            name = posixpath.normpath(member.name)
            if member.kind == tarfile.SYMTYPE:
                self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.link))
            elif member.kind == tarfile.LNKTYPE:
                self._links[name] = posixpath.normpath(member.link)
            elif member.kind == tarfile.REGTYPE and not member.is_sparse:
                self._places[name] = (member.offset, member.size_bytes)

    def _file_section(self, offset: int, size_bytes: int) -> FileSection:
        return FileSection(
            self._file, offset, size_bytes, uri=self._uri, check_cancelled=self._check_cancelled
        )

    def _section(self, name: str) -> tuple[FileSection, int]:
        place = posixpath.normpath(name)
        for _ in range(_NESTED):
            place = self._links.get(place, place)
        if place not in self._places:
            raise ArtifactInvalid(self._uri, f"{name} is missing in it")
        offset, size_bytes = self._places[place]
        return self._file_section(offset, size_bytes), size_bytes

    def _document(self, name: str, *, digest: str = "") -> object:
        section, size_bytes = self._section(name)
        if size_bytes > _DOCUMENT_BYTES:
            raise ArtifactInvalid(self._uri, f"{name} has {size_bytes} bytes, at most {_DOCUMENT_BYTES}")
        reader = HashingReader(section, digest, what=name, uri=self._uri) if digest else section
        content = b""
        while chunk := reader.read(size_bytes + 1):
            content += chunk
        if isinstance(reader, HashingReader):
            reader.verify()
        return parse_document(content, what=name, uri=self._uri)

    def _blob(self, digest: str, size_bytes: int) -> str:
        """The member of the blob `digest`, its size compared."""
        name = "blobs/" + digest.replace(":", "/", 1)
        _, stored_bytes = self._section(name)
        if stored_bytes != size_bytes:
            raise ArtifactInvalid(self._uri, f"{name} has {stored_bytes} bytes, should have {size_bytes}")
        return name

    def _oci_image(self, platform: str) -> ArchivedImage:
        index = self._document("index.json")
        chosen = choose_manifest(index, platform, what="index.json", uri=self._uri, one_image=True)
        for _ in range(_NESTED):
            name = self._blob(chosen.digest, chosen.size_bytes)
            document = self._document(name, digest=chosen.digest)
            is_index = chosen.is_index or (
                not chosen.media_type
                and field_of(document, "manifests", what=name, uri=self._uri) is not None
            )
            if not is_index:
                break
            chosen = choose_manifest(document, platform, what=name, uri=self._uri)
        else:
            raise ArtifactInvalid(self._uri, f"indexes nested deeper than {_NESTED}")
        config, layers = parse_manifest(document, what=name, uri=self._uri)
        self._document(self._blob(config.digest, config.size_bytes), digest=config.digest)
        archived = tuple(
            ArchivedLayer(self._blob(layer.digest, layer.size_bytes), layer.size_bytes, digest=layer.digest)
            for layer in layers
        )
        return ArchivedImage(chosen.digest, archived)

    def _docker_image(self) -> ArchivedImage:
        images = self._document("manifest.json")
        if not isinstance(images, list) or len(images) != 1:
            count = len(images) if isinstance(images, list) else "no list of"
            raise ArtifactInvalid(self._uri, f"manifest.json names {count} images; save a single one")
        config_name = field_of(images[0], "Config", what="manifest.json", uri=self._uri)
        names = texts(
            field_of(images[0], "Layers", what="manifest.json", uri=self._uri),
            what="Layers of manifest.json",
            uri=self._uri,
        )
        if not isinstance(config_name, str):
            raise ArtifactInvalid(self._uri, "manifest.json names no config")
        named = _SHA256_NAME.fullmatch(posixpath.basename(config_name))
        config = self._document(config_name, digest=f"sha256:{named[1]}" if named else "")
        rootfs = field_of(config, "rootfs", what=config_name, uri=self._uri)
        diff_ids = texts(
            field_of(rootfs, "diff_ids", what=f"rootfs of {config_name}", uri=self._uri),
            what=f"diff_ids of {config_name}",
            uri=self._uri,
        )
        if len(names) != len(diff_ids):
            raise ArtifactInvalid(self._uri, f"{len(names)} layers, but {len(diff_ids)} diff ids")
        layers = tuple(  # a missing one is told before the first one is unpacked
            ArchivedLayer(name, self._section(name)[1], diff_id=diff_id)
            for name, diff_id in zip(names, diff_ids, strict=True)
        )
        return ArchivedImage("", layers)
