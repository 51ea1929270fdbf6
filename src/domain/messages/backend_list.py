"""The listing of installed backends, reply on `backend.list` (the request's body is never read).

Source: LocalAI core/services/messaging/subjects.go.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from .document import Fields
from .error_text import told
from .reading import read_bool, read_object_list, read_text
from .wire import WireObject
from .writing import encode_object


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBackendInfo(WireObject):
    """One installed backend; `name`, `is_system` and `is_meta` are always sent.

    The other fields are those of its metadata.json, `installed_at` in RFC 3339 with offset. The frontend
    finds upgrades by `version`, `uri` and `digest`.
    """

    _always = ("name", "is_system", "is_meta")

    name: str
    is_system: bool = False
    is_meta: bool = False
    installed_at: str = ""
    gallery_url: str = ""
    version: str = ""
    uri: str = ""
    digest: str = ""

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            name=read_text(fields, "name"),
            is_system=read_bool(fields, "is_system"),
            is_meta=read_bool(fields, "is_meta"),
            installed_at=read_text(fields, "installed_at"),
            gallery_url=read_text(fields, "gallery_url"),
            version=read_text(fields, "version"),
            uri=read_text(fields, "uri"),
            digest=read_text(fields, "digest"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendListReply(WireObject):
    """The installed backends in the order given, or why they could not be listed.

    `backends` is always sent, as `null` when empty.
    """

    backends: tuple[NodeBackendInfo, ...] = ()
    error: str = ""

    @classmethod
    def failed(cls, error: str) -> Self:
        """The reply for a listing that failed with `error`."""
        return cls(error=told(error))

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            backends=tuple(map(NodeBackendInfo.from_fields, read_object_list(fields, "backends"))),
            error=read_text(fields, "error"),
        )

    def to_wire(self) -> bytes:
        """The bytes that Go would write; frontends ask often, and what is installed seldom changes."""
        return _written(self)

    def to_fields(self) -> dict[str, object]:
        """What is written; Go writes its empty slice as null."""
        failure = {"error": self.error} if self.error else {}
        return {"backends": [row.to_fields() for row in self.backends] or None, **failure}


@lru_cache(maxsize=4)
def _written(reply: BackendListReply) -> bytes:
    return encode_object(reply.to_fields())
