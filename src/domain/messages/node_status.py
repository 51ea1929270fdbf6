"""What the frontend answers about a node over HTTP: the models loaded on it, and errors.

Source: LocalAI core/http/endpoints/localai/nodes.go.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from ..errors import MalformedMessage
from .document import Fields, decode_object_list
from .reading import read_int64, read_object, read_optional_int64, read_text
from .wire import WireObject
from .writing import without_zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel(WireObject):
    """One row of `GET /api/node/{id}/models`: a model the frontend believes loaded on the node.

    `in_flight` counts the requests being served. Only newer frontends send `replica_index`. Times are
    RFC 3339. `loading_by` and `backend_type` are left out when empty, `replica_index` when None.
    """

    id: str = ""
    node_id: str = ""
    model_name: str = ""
    replica_index: int | None = None
    address: str = ""
    state: str = ""
    in_flight: int = 0
    last_used: str = ""
    loading_by: str = ""
    backend_type: str = ""
    created_at: str = ""
    updated_at: str = ""

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            id=read_text(fields, "id"),
            node_id=read_text(fields, "node_id"),
            model_name=read_text(fields, "model_name"),
            replica_index=read_optional_int64(fields, "replica_index"),
            address=read_text(fields, "address"),
            state=read_text(fields, "state"),
            in_flight=read_int64(fields, "in_flight"),
            last_used=read_text(fields, "last_used"),
            loading_by=read_text(fields, "loading_by"),
            backend_type=read_text(fields, "backend_type"),
            created_at=read_text(fields, "created_at"),
            updated_at=read_text(fields, "updated_at"),
        )

    def to_fields(self) -> dict[str, object]:
        """What is written: all but what is unknown or, of two fields, empty."""
        values = {name: value for name, value in self._values().items() if value is not None}
        return without_zeros(values, always=values.keys() - {"loading_by", "backend_type"})


def decode_loaded_models(payload: bytes) -> tuple[LoadedModel, ...]:
    """The rows in `payload`.

    Raises:
        MalformedMessage: `payload` is no array of rows. It must not be read as "nothing in flight": a
            seed frontend with authentication answers an error object here.
    """
    return tuple(map(LoadedModel.from_fields, decode_object_list(payload)))


def encode_loaded_models(rows: Iterable[LoadedModel]) -> bytes:
    """`rows` as the frontend answers them; none are `[]`."""
    return b"[" + b",".join(row.to_wire() for row in rows) + b"]"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeError(WireObject):
    """Body of an error answer of `/api/node/*`.

    Handlers send an object with `code` (the HTTP status) and `type`, the token check only a string;
    None for `code` means the latter, or a code that is no number.
    """

    code: int | None = None
    message: str
    type: str = "node_error"

    def to_fields(self) -> dict[str, object]:
        """What is written: an object, or the bare message where there is no code."""
        return {"error": self.message if self.code is None else self._values()}

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        errors = [value for value in fields.values("error") if value is not None]
        if errors and isinstance(errors[-1], str):
            return cls(message=read_text(fields, "error"))
        if not errors:
            raise MalformedMessage('field "error": want a string or an object, got nothing')
        error = read_object(fields, "error")
        return cls(code=_code(error), message=read_text(error, "message"), type=read_text(error, "type"))


def _code(error: Fields) -> int | None:
    try:
        return read_optional_int64(error, "code")
    except MalformedMessage:  # other error conventions use words here; the message is what matters
        return None
