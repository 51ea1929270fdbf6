"""One tar stream, the layer of an image, unpacked into a tree."""

import tarfile
from posixpath import basename, dirname, join

from ...domain.errors import ArtifactInvalid
from .forward_reader import ForwardReader
from .streams import ByteReader
from .tar_headers import TarMember
from .tar_members import TarMembers
from .tree import TreeBuilder

_WHITEOUT = ".wh."
_WHITEOUT_META = ".wh..wh."
_OPAQUE = ".wh..wh..opq"
_REFUSED = {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe"}


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


def _place(member: TarMember, tree: TreeBuilder, members: TarMembers, uri: str) -> None:
    if _WHITEOUT in member.name and _is_marker(member.name, tree, uri):
        return
    kind = member.kind
    if kind == tarfile.REGTYPE:
        chunks = members.content(member)
        tree.add_file(member.name, mode=member.mode, mtime_s=member.mtime_s, chunks=chunks)
    elif kind == tarfile.DIRTYPE:
        tree.add_directory(member.name, mode=member.mode, mtime_s=member.mtime_s)
    elif kind == tarfile.SYMTYPE:
        tree.add_symlink(member.name, member.link, mtime_s=member.mtime_s)
    elif kind == tarfile.LNKTYPE:
        tree.add_hardlink(member.name, member.link)
    else:
        called = _REFUSED.get(kind, "unknown")
        raise ArtifactInvalid(
            uri, f"entry {member.name!r}: {called}; only files, directories and links are taken"
        )


def _is_marker(full_name: str, tree: TreeBuilder, uri: str) -> bool:
    """Whether this is no entry but a sign for what is to be hidden; if so, it is obeyed."""
    name = basename(full_name.rstrip("/"))
    if name == _OPAQUE:
        tree.hide_children(dirname(full_name))
    elif name.startswith(_WHITEOUT_META):
        pass  # bookkeeping of the aufs file system, content for nobody
    elif name.startswith(_WHITEOUT):
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in {"", ".", ".."}:
            raise ArtifactInvalid(uri, f"entry {full_name!r}: a whiteout of nothing")
        tree.hide(join(dirname(full_name), hidden))
    else:
        return False
    return True
