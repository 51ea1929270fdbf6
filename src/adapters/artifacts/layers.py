"""One layer of an image: decompressed, verified and applied to a tree."""

from .decompress import decompressed
from .read_ahead import ReadAhead
from .streams import ByteReader, HashingReader
from .tree import TreeBuilder
from .unpack import unpack_layer


def apply_layer(
    source: ByteReader, tree: TreeBuilder, *, digest: str = "", diff_id: str = "", what: str, uri: str
) -> None:
    """Unpack a layer, compressed or plain, and verify it: `digest` is of `source`, `diff_id` of the tar
    stream inside; "" is not verified.

    The tree is written before the verdict: on an error its owner throws it away. `source` is read in
    another thread.

    Raises:
        ArtifactInvalid: broken or hostile.
        NoSpace, FileUnwritable: the tree cannot be written.
    """
    stored = HashingReader(source, digest, what=what, uri=uri) if digest else source
    plain = decompressed(stored, what=what, uri=uri)
    content = HashingReader(plain, diff_id, what=f"content of {what}", uri=uri) if diff_id else plain
    ahead = ReadAhead(content)
    try:
        unpack_layer(ahead, tree, what=what, uri=uri)
    finally:
        ahead.close()
    for reader in (stored, content):
        if isinstance(reader, HashingReader):
            reader.verify()
