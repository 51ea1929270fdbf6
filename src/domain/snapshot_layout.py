"""Where snapshots lie below the models directory: upstream's names, so that both find each other's."""

import re
from pathlib import PurePosixPath

from .snapshot_spec import KEY

ARTIFACTS = PurePosixPath(".artifacts")
COMMITTED = ARTIFACTS / "huggingface"
PARTIAL = ARTIFACTS / ".partial"
MANIFEST = "manifest.json"
SNAPSHOT = "snapshot"
_TREE = re.compile(r"([0-9a-f]{64})\.([0-9a-f]{16})")


def committed_path(key: str) -> PurePosixPath:
    """The directory of the whole snapshot `key`; its files are below `snapshot`, `manifest.json` beside."""
    return COMMITTED / key


def lock_path(key: str) -> PurePosixPath:
    """The file that stands for the right to make the snapshot `key`."""
    return ARTIFACTS / ".locks" / f"{key}.lock"


def tree_path(key: str, writer: str) -> PurePosixPath:
    """Where `writer` (16 hex digits) builds the snapshot `key`."""
    return PARTIAL / f"{key}.{writer}"


def key_of_tree(name: str) -> str:
    """The key in the name that `tree_path` made; "" for any other name."""
    found = _TREE.fullmatch(name)
    return found[1] if found else ""


def is_key(name: str) -> bool:
    """Whether `name` can be a snapshot's."""
    return KEY.fullmatch(name) is not None
