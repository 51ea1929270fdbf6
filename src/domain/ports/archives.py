"""Archives among a model's files."""

from typing import Protocol

from .filesystem import RootedPath

_EXTENSIONS = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tzst")
_COMPRESSED_TARS = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def is_archive(name: str) -> bool:
    """Whether a file of this name is unpacked once it is fetched."""
    return name.lower().endswith((*_EXTENSIONS, *_COMPRESSED_TARS))


class ArchiveUnpacker(Protocol):
    async def unpack(self, archive: RootedPath) -> None:
        """Put what is in `archive` beside it; the archive stays.

        Everything in it is looked at first: one entry with an empty, absolute or climbing name, a symlink,
        a hard link that leads out, or a device, and nothing is unpacked.

        Raises:
            ArtifactInvalid: it is broken, hostile or too large.
            NoSpace, FileUnwritable: it does not fit.
        """
