"""Payloads that are no images: a tar archive, compressed or not, or a program on its own."""

import stat
from pathlib import Path

from ...domain.errors import ArtifactInvalid
from .decompress import decompressed
from .filing import unwritable
from .read_ahead import ReadAhead
from .streams import CHUNK_BYTES, ByteReader, HashingReader, PrefixedReader, is_digest
from .tree import TreeBuilder
from .unpack import unpack_layer

RUN_FILE = "run.sh"
_PROGRAMS = (b"\x7fELF", b"#!")
_ZIP = b"PK\x03\x04"
_LONGEST_MAGIC = 4


def sha256_digest(uri: str, sha256: str) -> str:
    """The digest that `sha256`, as a gallery writes it, stands for; "" for none.

    Raises:
        ArtifactInvalid: it is no SHA-256.
    """
    digest = f"sha256:{sha256.strip().lower()}" if sha256 else ""
    if digest and not is_digest(digest):
        raise ArtifactInvalid(uri, f"its gallery gives {sha256!r} as SHA-256, which has 64 hex digits")
    return digest


def place_payload(
    source: ByteReader, tree: TreeBuilder, *, digest: str = "", what: str = "the payload", uri: str
) -> str:
    """Put a payload into `tree`, and return its digest, which is `digest` where that is given.

    An archive is unpacked; where all of it lies in one directory with a run.sh, that directory becomes
    the tree. A program becomes the run.sh itself.

    Raises:
        ArtifactInvalid: neither, broken, hostile or of another digest.
        NoSpace, FileUnwritable: the tree cannot be written.
    """
    stored = HashingReader(source, digest, what=what, uri=uri)
    ahead = ReadAhead(decompressed(stored, what=what, uri=uri))
    try:
        head = ahead.read(_LONGEST_MAGIC)
        while len(head) < _LONGEST_MAGIC and (chunk := ahead.read(_LONGEST_MAGIC - len(head))):
            head += chunk
        content = PrefixedReader(head, ahead)
        if head.startswith(_PROGRAMS):
            tree.add_file(
                RUN_FILE, mode=0o755, mtime_s=0, chunks=iter(lambda: content.read(CHUNK_BYTES), b"")
            )
        elif head == _ZIP:
            raise ArtifactInvalid(uri, f"{what} is a zip archive; tar archives and programs are taken")
        else:
            unpack_layer(content, tree, what=what, uri=uri)
    finally:
        ahead.close()
    stored.verify()
    tree.finish()
    _lift_only_directory(tree.root)
    return stored.digest


def _lift_only_directory(root: Path) -> None:
    """Let the content of the only directory in `root` take its place, if the program lies there."""
    try:
        entries = list(root.iterdir())
        if len(entries) != 1 or not stat.S_ISDIR(entries[0].lstat().st_mode):
            return
        if not (entries[0] / RUN_FILE).is_file():
            return
        aside = entries[0].rename(root / ".lifted")
        for path in list(aside.iterdir()):
            path.rename(root / path.name)
        aside.rmdir()
    except OSError as error:
        raise unwritable(root, error) from error
