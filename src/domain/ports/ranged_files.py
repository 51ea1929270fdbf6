"""Files written and read by ranges, from several worker threads at once: an object store's side of D13.

An object of many gigabytes comes in parallel ranges; no event loop and no domain service sees its bytes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

from ..byte_spans import ByteSpan
from .filesystem import FileStat, RootedPath

Algorithm = Literal["md5", "sha256"]


class AssembledFile(Protocol):
    """A file of known size put together from ranges under a private name; nobody sees it before `publish`.

    It ends by `publish` and then `settle`, by `keep`, or by `discard`; after a crash it is as if kept, but
    for the last bytes.
    """

    @property
    def size_bytes(self) -> int:
        """The size it will have."""

    @property
    def missing(self) -> tuple[ByteSpan, ...]:
        """What was not written yet, in order."""

    def write_at(self, offset: int, chunk: memoryview) -> None:
        """Put `chunk` at `offset`. Blocks: for worker threads, several at once.

        Raises:
            NoSpace, FileUnwritable: the bytes did not fit.
        """

    async def digest(self, algorithm: Algorithm, span: ByteSpan) -> bytes:
        """The hash of the bytes of `span`; it waits for those that are still to come.

        Raises:
            FileUnreadable: the file ended by `keep` or `discard` before they came.
        """

    async def publish(self) -> FileStat:
        """Make the file appear whole under its target name, and tell what appeared.

        An older file is replaced in the same step; who has it open goes on reading it. What appeared is not
        yet safe from a power cut: see `settle`.

        Raises:
            ValueError: bytes are missing.
            NoSpace, FileUnwritable: the target is as it was.
        """

    async def settle(self) -> None:
        """After `publish`: return once the file is safe from a power cut; idempotent.

        Many files waited for at the same time cost less than one after the other.

        Raises:
            NoSpace, FileUnwritable: it may not be.
        """

    async def keep(self) -> None:
        """Leave what was written for a later attempt; idempotent, also after another end.

        Raises:
            NoSpace, FileUnwritable: a later attempt may have to start anew.
        """

    async def discard(self) -> None:
        """Drop what was written; idempotent, also after another end (then nothing happens)."""


class WholeFile(Protocol):
    """A file that appeared with all its content. Not yet safe from a power cut: see `settle`."""

    @property
    def stat(self) -> FileStat:
        """What appeared."""

    async def settle(self) -> None:
        """Return once the file is safe from a power cut; idempotent.

        Raises:
            NoSpace, FileUnwritable: it may not be.
        """


class SourceFile(Protocol):
    """A regular file opened for reading; it stays readable while open, whatever happens to its name."""

    @property
    def size_bytes(self) -> int:
        """Size when it was opened."""

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """That many bytes from `offset` on, fewer only at the end. Blocks: for worker threads.

        Raises:
            FileUnreadable: it became shorter than it was when opened, or cannot be read.
        """

    async def digest(self, algorithm: Algorithm, span: ByteSpan) -> bytes:
        """The hash of the bytes of `span`; the event loop runs on meanwhile.

        Raises:
            FileUnreadable: as `read_at`.
        """

    async def close(self) -> None:
        """Let go of the file; idempotent."""


class RangedFiles(Protocol):
    """Files by ranges.

    Nothing outside the root of a `RootedPath` is ever touched, whatever symlinks lie inside.
    """

    async def assemble(self, place: RootedPath, *, version: str, size_bytes: int) -> AssembledFile:
        """Go on with, or start, the file at `place`; missing parents are created (0750).

        What an earlier attempt kept of the same `version` and size counts as written; of another one it is
        dropped. While somebody else assembles the same place, this attempt starts at nothing, apart from it.
        The room for `size_bytes` is taken at once where the disk can do that.

        Raises:
            PathEscapes: a symlink leads out of the root.
            NoSpace, FileUnwritable: no such file can be made there (a directory stands in the way).
        """

    async def put_whole(
        self, place: RootedPath, content: bytes, approve: Callable[[bytes], None]
    ) -> WholeFile:
        """Let a small file appear at `place`, with all of `content`; missing parents are created (0750).

        As with `publish`, an older file is replaced in the same step. `approve` is called first, off the
        event loop: what it raises leaves everything as it was. What an earlier attempt kept of the place is
        not looked at.

        Raises:
            PathEscapes: a symlink leads out of the root.
            NoSpace, FileUnwritable: the target is as it was.
        """

    async def kept(self, place: RootedPath) -> str | None:
        """The version of what an earlier attempt kept of `place`; None when there is nothing to go on with.

        Raises:
            PathEscapes: a symlink leads out of the root.
        """

    async def open_source(self, place: RootedPath) -> SourceFile | None:
        """Open a regular file for reading; None when nothing is there.

        Raises:
            PathEscapes: a symlink leads out of the root.
            FileUnreadable: a directory, or not ours to read.
        """

    async def real_paths(self, *paths: Path) -> tuple[Path, ...]:
        """Each of `paths` with every link followed; what is missing stays by name."""
