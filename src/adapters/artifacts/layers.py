"""One layer of an image: unzipped, verified and applied to a tree."""

from ...domain.errors import ArtifactInvalid
from .streams import ByteReader, GunzipReader, HashingReader, PrefixedReader
from .tree import TreeBuilder
from .unpack import unpack_layer

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def apply_layer(
    source: ByteReader, tree: TreeBuilder, *, digest: str = "", diff_id: str = "", what: str, uri: str
) -> None:
    """Unpack a layer, gzipped or plain, and verify it: `digest` is of `source`, `diff_id` of the tar
    stream inside; "" is not verified.

    The tree is written before the verdict: on an error its owner throws it away.

    Raises:
        ArtifactInvalid: broken, hostile or compressed otherwise.
        NoSpace, FileUnwritable: the tree cannot be written.
    """
    stored = HashingReader(source, digest, what=what, uri=uri) if digest else source
    head = _read_head(stored)
    content: ByteReader = PrefixedReader(head, stored)
    if head == _ZSTD_MAGIC:
        raise ArtifactInvalid(
            uri, f"{what} is compressed with zstd, which is not supported; save it with gzip"
        )
    if head.startswith(_GZIP_MAGIC):
        content = GunzipReader(content, what=what, uri=uri)
    unzipped = HashingReader(content, diff_id, what=f"content of {what}", uri=uri) if diff_id else content
    unpack_layer(unzipped, tree, what=what, uri=uri)
    for reader in (stored, unzipped):
        if isinstance(reader, HashingReader):
            reader.verify()


def _read_head(source: ByteReader) -> bytes:
    head = b""
    while len(head) < len(_ZSTD_MAGIC) and (chunk := source.read(len(_ZSTD_MAGIC) - len(head))):
        head += chunk
    return head
