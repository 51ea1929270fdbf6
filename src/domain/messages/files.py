"""Messages of the four `files.*` subjects, used when an object store is configured.

A reply carries either its result or `error`, never both. `files.temp` does not read its request's body.
Source: LocalAI core/services/nodes/file_stager_s3.go.
"""

from dataclasses import dataclass
from typing import Self

from ..errors import MalformedMessage
from .document import Fields
from .error_text import told
from .reading import read_text, read_text_list
from .wire import WireObject


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesEnsureRequest(WireObject):
    """Fetch the object `key` into the worker's cache; request on `files.ensure`."""

    _always = ("key",)

    key: str

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(key=read_text(fields, "key"))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesStageRequest(WireObject):
    """Upload the worker's file `local_path` as the object `key`; request on `files.stage`."""

    _always = ("local_path", "key")

    local_path: str
    key: str

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(local_path=read_text(fields, "local_path"), key=read_text(fields, "key"))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesListdirRequest(WireObject):
    """List the files below `key_prefix`; request on `files.listdir`."""

    _always = ("key_prefix",)

    key_prefix: str

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(key_prefix=read_text(fields, "key_prefix"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _FilesReply(WireObject):
    error: str = ""

    @classmethod
    def failed(cls, error: str) -> Self:
        """The reply for a failure with `error`."""
        return cls(error=told(error))

    @classmethod
    def malformed(cls, error: MalformedMessage) -> Self:
        """The reply to a request that could not be decoded: upstream tells no detail here."""
        return cls(error=error.summary)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LocalPathReply(_FilesReply):
    local_path: str = ""

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(local_path=read_text(fields, "local_path"), error=read_text(fields, "error"))

    def to_fields(self) -> dict[str, object]:
        """The error alone, or the result alone."""
        return {"error": self.error} if self.error else {"local_path": self.local_path}


class FilesEnsureReply(_LocalPathReply):
    """Where on the worker the fetched object lies."""

    __slots__ = ()


class FilesTempReply(_LocalPathReply):
    """Where on the worker the new empty file lies; reply on `files.temp`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesStageReply(_FilesReply):
    """The key under which the file was uploaded: the one asked for."""

    key: str = ""

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(key=read_text(fields, "key"), error=read_text(fields, "error"))

    def to_fields(self) -> dict[str, object]:
        """The error alone, or the result alone."""
        return {"error": self.error} if self.error else {"key": self.key}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesListdirReply(_FilesReply):
    """Paths relative to the listed directory: files only, in lexical walk order, `null` for none."""

    files: tuple[str, ...] = ()

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(files=tuple(read_text_list(fields, "files")), error=read_text(fields, "error"))

    def too_long(self, size_bytes: int, limit_bytes: int) -> Self:
        """What to answer instead when the bus does not take this reply."""
        sizes = f"a list of {len(self.files)} files takes {size_bytes} bytes, the bus takes {limit_bytes}"
        return self.failed(f"{sizes}; ask with a longer prefix, or raise max_payload of the NATS server")

    def to_fields(self) -> dict[str, object]:
        """The error alone, or the result alone."""
        return {"error": self.error} if self.error else {"files": self.files or None}
