"""One tar stream, the layer of an image, unpacked into a tree."""

import tarfile
from posixpath import basename, dirname, join

from ...domain.errors import ArtifactInvalid
from .streams import ByteReader, ForwardReader
from .tar_members import TarMembers
from .tree import TreeBuilder

_WHITEOUT = ".wh."
_WHITEOUT_META = ".wh..wh."
_OPAQUE = ".wh..wh..opq"


def unpack_layer(source: ByteReader, tree: TreeBuilder, *, what: str, uri: str) -> None:
    """Apply the tar stream `source` on top of `tree`, and read it to its end.

    `.wh.<name>` hides what earlier layers put at `<name>`, `.wh..wh..opq` everything they put into its
    directory (OCI image specification, layers). Streams: memory does not grow with the content.

    Raises:
        ArtifactInvalid: `what` (how messages call the stream) is no tar archive, ends too early,
            passes a limit, or holds an entry that is hostile or a device, pipe or socket.
        NoSpace, FileUnwritable: the tree cannot be written.
    """
    reader = ForwardReader(source, limit_bytes=tree.limits.total_bytes, uri=uri)
    tree.begin_layer()
    members = TarMembers(reader, what=what, uri=uri)
    for member in members:
        _place(member, tree, members, uri)
    reader.drain()


def _place(member: tarfile.TarInfo, tree: TreeBuilder, members: TarMembers, uri: str) -> None:
    name = basename(member.name.rstrip("/"))
    if name == _OPAQUE:
        tree.hide_children(dirname(member.name))
    elif name.startswith(_WHITEOUT_META):
        return  # bookkeeping of the aufs file system, content for nobody
    elif name.startswith(_WHITEOUT):
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in {"", ".", ".."}:
            raise ArtifactInvalid(uri, f"entry {member.name!r}: a whiteout of nothing")
        tree.hide(join(dirname(member.name), hidden))
    elif member.isdir():
        tree.add_directory(member.name, mode=member.mode, mtime_s=member.mtime)
    elif member.isreg():
        chunks = members.content(member)
        tree.add_file(member.name, mode=member.mode, mtime_s=member.mtime, chunks=chunks)
    elif member.issym():
        tree.add_symlink(member.name, member.linkname, mtime_s=member.mtime)
    elif member.islnk():
        tree.add_hardlink(member.name, member.linkname)
    else:
        kind = "a device" if member.ischr() or member.isblk() else "a pipe" if member.isfifo() else "unknown"
        raise ArtifactInvalid(
            uri, f"entry {member.name!r}: {kind}; only files, directories and links are taken"
        )
