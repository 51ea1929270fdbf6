"""What is known of a snapshot on disk: its `manifest.json`."""

import json
import re
from dataclasses import dataclass, replace
from typing import Self

from .errors import WorkerError
from .ports.model_hub import HubFile
from .snapshot_spec import MODEL, SnapshotSpec

_VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ESCAPED_BY_GO = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


@dataclass(eq=False)
class InvalidManifest(WorkerError):
    """A manifest that does not describe a snapshot."""

    reason: str

    def __str__(self) -> str:
        return f"invalid manifest: {self.reason}"


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file of a snapshot, and the hash that its content was found to have."""

    file: HubFile
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A snapshot that is whole: what was asked for, with the version that was found, and its files.

    The text is upstream's, byte for byte: Go's encoder, indented by two.
    Source: LocalAI pkg/modelartifacts/manifest.go.
    """

    spec: SnapshotSpec
    files: tuple[ManifestFile, ...]

    def of(self, spec: SnapshotSpec) -> "Manifest":
        """The same snapshot as the answer to `spec`, which wants these files under a name of its own."""
        found = self.spec.resolved
        if found is not None and len(self.files) == 1:
            primary = self.files[0].file.path if spec.target == MODEL else ""
            found = replace(found, primary_file=primary)
        return replace(self, spec=replace(spec, resolved=found))

    def to_json(self) -> bytes:
        """The content of the file."""
        told = {
            "version": _VERSION,
            "artifact": self.spec.to_mapping(),
            "files": [_told(each) for each in self.files],
        }
        text = json.dumps(told, indent=2, ensure_ascii=False)
        return f"{text.translate(_ESCAPED_BY_GO)}\n".encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """The manifest that `content` is.

        Raises:
            InvalidManifest, InvalidSnapshotSpec: it is none, or of another version, or not all there.
        """
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InvalidManifest("it is no JSON") from error
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            raise InvalidManifest(f"it is not of version {_VERSION}")
        artifact, files = document.get("artifact"), document.get("files")
        if not isinstance(artifact, dict) or not isinstance(files, list) or not files:
            raise InvalidManifest("it has no artifact, or no files")
        spec = SnapshotSpec.from_mapping(artifact)
        if not spec.key_is_right:
            raise InvalidManifest("its cache_key does not follow from what it describes")
        return cls(spec, tuple(map(_read, files)))


def _told(each: ManifestFile) -> dict[str, object]:
    told: dict[str, object] = {
        "path": each.file.path,
        "size": each.file.size_bytes,
        "sha256": each.sha256,
    }
    rest = {
        "blob_oid": each.file.blob_id,
        "lfs_oid": each.file.lfs_sha256,
        "xet_hash": each.file.xet_hash,
    }
    return told | {name: value for name, value in rest.items() if value}


def _read(fields: object) -> ManifestFile:
    if not isinstance(fields, dict):
        raise InvalidManifest("a file is no object")
    path, size_bytes, sha256 = (fields.get(name) for name in ("path", "size", "sha256"))
    if not isinstance(path, str) or any(part in {"", ".", ".."} for part in path.split("/")) or "\0" in path:
        raise InvalidManifest(f"a file has the path {path!r}")
    if type(size_bytes) is not int or size_bytes < 0:
        raise InvalidManifest(f"{path} has the size {size_bytes!r}")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise InvalidManifest(f"{path} has the sha256 {sha256!r}")
    blob_id, lfs_sha256, xet_hash = (
        str(fields.get(name) or "") for name in ("blob_oid", "lfs_oid", "xet_hash")
    )
    file = HubFile(
        path=path, size_bytes=size_bytes, blob_id=blob_id, lfs_sha256=lfs_sha256, xet_hash=xet_hash
    )
    return ManifestFile(file, sha256)
