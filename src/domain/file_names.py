"""The names this worker gives to files of its own that lie beside the frontend's."""

import hashlib
import re
from pathlib import PurePosixPath

from .ports.filesystem import RootedPath

NAME_LIMIT_BYTES = 255  # NAME_MAX of ext4, xfs, btrfs and overlayfs
SIDECAR_SUFFIX = (
    ".sha256"  # `<file>.sha256` holds the file's hash; a Go worker on the same volume reads it too
)
TARGET_SIDECAR_SUFFIX = ".sha256.target"  # a Go worker's note of the hash a partial upload will have
PRIVATE_SUFFIX = ".incoming"
REPLACED_SUFFIX = ".replaced"
_PARTIAL = re.compile(r"([0-9a-f]{64}|unknown)-(\d{1,19})", re.ASCII)


def private_name(name: str, unique: str) -> str:
    """The hidden name under which `name` is built before it appears: `.<name>.<unique>.incoming`.

    A long `name` is cut, on a character's border, so that the result is a legal file name.
    """
    room = NAME_LIMIT_BYTES - len(f"..{unique}{PRIVATE_SUFFIX}")
    kept = name.encode("utf-8", "surrogateescape")[:room].decode("utf-8", "ignore")
    return f".{kept}.{unique}{PRIVATE_SUFFIX}"


def partial_directory_name(name: str) -> str:
    """The hidden directory beside the file `name` that holds what came of it so far, for a later attempt.

    Always the same for one name, so that it is found without reading the directory around it; the digest
    keeps long names apart of which only the beginning fits.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return private_name(name, f"{digest[:16]}.partial")


def is_partial_directory_name(name: str) -> bool:
    """Whether `name` is one that `partial_directory_name` makes."""
    return is_private_name(name) and name.endswith(f".partial{PRIVATE_SUFFIX}")


def partial_file_name(sha256: str, total_bytes: int) -> str:
    """What a partial file is called in its directory: what it will be. An empty `sha256` is not known."""
    return f"{sha256 or 'unknown'}-{total_bytes}"


def parse_partial_file_name(name: str) -> tuple[str, int] | None:
    """The hash and size that `partial_file_name` was given; None for any other name."""
    match = _PARTIAL.fullmatch(name)
    if match is None:
        return None
    sha256, total_bytes = match.groups()
    return ("" if sha256 == "unknown" else sha256), int(total_bytes)


def replaced_name(name: str, unique: str) -> str:
    """The hidden name of what had `name` until it was replaced: `.<name>.<unique>.replaced`."""
    return private_name(name, unique).removesuffix(PRIVATE_SUFFIX) + REPLACED_SUFFIX


def name_replaced(hidden: str) -> str:
    """What had to give way to be called `hidden`; "" for any other name."""
    if not hidden.startswith(".") or not hidden.endswith(REPLACED_SUFFIX):
        return ""
    return hidden[1:].removesuffix(REPLACED_SUFFIX).rpartition(".")[0]


def is_private_name(name: str) -> bool:
    """Whether `name` is one that `private_name` makes."""
    return name.startswith(".") and name.endswith(PRIVATE_SUFFIX)


def is_sidecar_name(name: str) -> bool:
    """Whether `name` is that of a hash kept beside a file, ours or a Go worker's."""
    return sidecar_subject(name) != name


def sidecar_subject(name: str) -> str:
    """The name of the file that the sidecar `name` speaks of; `name` itself when it is no sidecar."""
    for suffix in (TARGET_SIDECAR_SUFFIX, SIDECAR_SUFFIX):
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix)
    return name


def sidecar_of(place: RootedPath) -> RootedPath | None:
    """Where the hash of the file at `place` is kept; None when it can have no sidecar.

    A sidecar has none itself (upstream once grew chains of `.sha256.sha256...`, 29 deep: commit
    878a0d00a), nor has a file whose name leaves no room for the suffix.
    """
    name = place.relative.name + SIDECAR_SUFFIX
    if (
        is_sidecar_name(place.relative.name)
        or len(name.encode("utf-8", "surrogateescape")) > NAME_LIMIT_BYTES
    ):
        return None
    return RootedPath(place.root, place.relative.with_name(name))


def hide_own_files(paths: tuple[PurePosixPath, ...]) -> tuple[PurePosixPath, ...]:
    """`paths` without what the worker itself put among them: temporaries, and sidecars of files listed.

    A name that merely ends in `.sha256` with no such file beside it belongs to the model: it stays.
    """
    listed = set(paths)
    return tuple(path for path in paths if not _is_ours(path, listed))


def _is_ours(path: PurePosixPath, listed: set[PurePosixPath]) -> bool:
    if any(is_private_name(part) for part in path.parts):
        return True
    return is_sidecar_name(path.name) and path.with_name(sidecar_subject(path.name)) in listed
