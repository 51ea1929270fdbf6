"""Tar streams and image archives, well-formed and otherwise, for tests of what reads them."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One tar entry; `fields` are those of TarInfo (`type`, `mode`, `linkname`, `mtime`, ...)."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    info.mtime = 1_700_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def directory(name: str, mode: int = 0o755, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode, **fields)


def tar(entries: Sequence[tuple[tarfile.TarInfo, bytes]], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """The entries as a tar stream, however odd they are."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, errors="surrogateescape") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def tree_tar(files: Mapping[str, bytes]) -> bytes:
    """A tar stream of executable files."""
    return tar([entry(name, content, mode=0o755) for name, content in files.items()])


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def descriptor(content: bytes, media_type: str = "", **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **fields}


def to_json(value: object) -> bytes:
    return json.dumps(value).encode()


def image_blobs(layers: Sequence[bytes], *, media_type: str = GZIP_LAYER) -> tuple[bytes, dict[str, bytes]]:
    """A manifest over `layers` as they are stored, and all blobs by their member name."""
    config = to_json({"rootfs": {"type": "layers", "diff_ids": []}})
    manifest = to_json(
        {
            "schemaVersion": 2,
            "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(layer, media_type) for layer in layers],
        }
    )
    return manifest, {blob_name(digest_of(blob)): blob for blob in (config, manifest, *layers)}


def oci_members(layers: Sequence[bytes]) -> dict[str, bytes]:
    """The members of an OCI layout with one image of these layers, as stored."""
    manifest, blobs = image_blobs(layers)
    index = to_json({"schemaVersion": 2, "manifests": [descriptor(manifest, MANIFEST)]})
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **blobs}


def docker_members(layers: Sequence[bytes]) -> dict[str, bytes]:
    """The members of what `docker save` wrote before it knew OCI: plain layers, verified by diff ids."""
    config = to_json({"rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}})
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = to_json([{"Config": config_name, "RepoTags": ["t:1"], "Layers": names}])
    return {config_name: config, "manifest.json": manifest, **dict(zip(names, layers, strict=True))}


def write_archive(path: Path, members: Mapping[str, bytes]) -> Path:
    path.write_bytes(tar([entry(name, content) for name, content in members.items()]))
    return path


def write_oci(path: Path, *layers: bytes) -> Path:
    """An OCI archive of tar streams, each gzipped."""
    return write_archive(path, oci_members([gzip.compress(layer, mtime=0) for layer in layers]))


def write_docker(path: Path, *layers: bytes) -> Path:
    """A docker archive of tar streams."""
    return write_archive(path, docker_members(layers))
