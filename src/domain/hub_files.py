"""The files of a repository that a snapshot is made of: chosen by pattern, and fit to be written."""

import re
from collections.abc import Sequence
from itertools import pairwise
from urllib.parse import quote

from .errors import ArtifactInvalid
from .file_names import NAME_LIMIT_BYTES, is_private_name
from .hub_patterns import matches
from .ports.model_hub import HubFile
from .snapshot_spec import SnapshotSpec

MOST_FILES = 100_000  # as upstream
_MOST_BYTES = 1 << 60
_LONGEST_PATH_BYTES = 3072  # leaves PATH_MAX room for the models directory and the snapshot's own
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


def file_url(endpoint: str, repository: str, commit: str, path: str) -> str:
    """Where the file `path` of a version lies."""
    return f"{endpoint}/{quote(repository)}/resolve/{commit}/{quote(path)}"


def choose_files(spec: SnapshotSpec, listed: Sequence[HubFile]) -> tuple[HubFile, ...]:
    """Those of `listed` that `spec` wants, in the order of their paths.

    Raises:
        ArtifactInvalid: it wants none of them; or one it wants cannot be written: a path that leads out or is
            too long, twice the same, a file where another needs a directory, a size or hash that is none.
    """
    wanted = [
        file
        for file in listed
        if (not spec.allow or matches(file.path, spec.allow)) and not matches(file.path, spec.ignore)
    ]
    if not wanted:
        patterns = f" that match {', '.join(spec.allow)}" if spec.allow else ""
        raise ArtifactInvalid(spec.repository, f"it has no files{patterns}")
    for file in wanted:
        _check_path(spec.repository, file.path)
        _check_content(spec.repository, file)
    chosen = sorted(wanted, key=lambda file: file.path.encode())
    _check_together(spec.repository, [file.path for file in chosen])
    if sum(file.size_bytes for file in chosen) > _MOST_BYTES:
        raise ArtifactInvalid(spec.repository, "its sizes add up to more than any disk has")
    return tuple(chosen)


def _check_path(repository: str, path: str) -> None:
    try:
        size_bytes = len(path.encode())
    except UnicodeEncodeError as error:
        raise ArtifactInvalid(repository, f"the path {_shown(path)} is no text") from error
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts) or set(path) & set("\\\0"):
        raise ArtifactInvalid(repository, f"the path {_shown(path)} leads out of it")
    if size_bytes > _LONGEST_PATH_BYTES or any(len(part.encode()) > NAME_LIMIT_BYTES for part in parts):
        reason = f"{NAME_LIMIT_BYTES} bytes for a name and {_LONGEST_PATH_BYTES} for all are the limit"
        raise ArtifactInvalid(repository, f"the path {_shown(path)} is too long: {reason}")
    if any(map(is_private_name, parts)):
        raise ArtifactInvalid(repository, f"the path {_shown(path)} is one of the worker's own")


def _check_content(repository: str, file: HubFile) -> None:
    named = f"the file {_shown(file.path)}"
    if not 0 <= file.size_bytes <= _MOST_BYTES:
        raise ArtifactInvalid(repository, f"{named} has {file.size_bytes} bytes")
    if file.lfs_sha256 and not _SHA256.fullmatch(file.lfs_sha256):
        raise ArtifactInvalid(repository, f"{named} has the LFS hash {_shown(file.lfs_sha256)}")
    if file.blob_id and not _SHA1.fullmatch(file.blob_id):
        raise ArtifactInvalid(repository, f"{named} has the blob id {_shown(file.blob_id)}")
    if not file.lfs_sha256 and not file.blob_id:
        raise ArtifactInvalid(repository, f"{named} has no hash: nobody could tell whether it is right")


def _check_together(repository: str, paths: Sequence[str]) -> None:
    known = set(paths)
    if len(known) != len(paths):
        twice = next(path for path, after in pairwise(paths) if path == after)
        raise ArtifactInvalid(repository, f"the path {_shown(twice)} is there twice")
    for path in paths:
        above = path
        while "/" in above:
            above = above.rpartition("/")[0]
            if above in known:
                raise ArtifactInvalid(repository, f"{_shown(above)} is both a file and a directory")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 100 else f"{text[:100]}...")
