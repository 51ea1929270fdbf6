"""Messages about models: unload, stop one replica, delete the files, list what runs.

Source: LocalAI core/services/messaging/subjects.go.
"""

from dataclasses import dataclass
from typing import Self

from ..errors import MalformedMessage
from .document import Fields
from .error_text import told
from .reading import read_bool, read_int64, read_object_list, read_text
from .wire import WireObject


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUnloadRequest(WireObject):
    """Free a model's memory but keep its process; request on `model.unload`.

    `model_name` is always sent; the frontend never fills `address`.
    """

    _always = ("model_name",)

    model_name: str
    address: str = ""

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(model_name=read_text(fields, "model_name"), address=read_text(fields, "address"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDeleteRequest(WireObject):
    """Delete a model's staged files; request on `model.delete`. `model_name` is always sent."""

    _always = ("model_name",)

    model_name: str

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(model_name=read_text(fields, "model_name"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _OutcomeReply(WireObject):
    """Success, or an error text; `success` is always sent."""

    _always = ("success",)

    success: bool
    error: str = ""

    @classmethod
    def failed(cls, error: str) -> Self:
        """The reply for a failure with `error`."""
        return cls(success=False, error=told(error))

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(success=read_bool(fields, "success"), error=read_text(fields, "error"))


class ModelUnloadReply(_OutcomeReply):
    """What became of an unload."""

    __slots__ = ()

    @classmethod
    def malformed(cls, error: MalformedMessage) -> Self:
        """The reply to a request that could not be decoded."""
        return cls.failed(str(error))


class ModelDeleteReply(_OutcomeReply):
    """What became of a deletion."""

    __slots__ = ()

    @classmethod
    def malformed(cls, error: MalformedMessage) -> Self:
        """The reply to a request that could not be decoded: upstream tells no detail here."""
        return cls.failed(error.summary)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStopRequest(WireObject):
    """Stop exactly one replica; request on `model.stop` (newer).

    `process_key` is `model#N`, `expected_address` the advertised `host:port` in the frontend's row;
    both and `model_name` (informational) are always sent. `force` skips the Free call.
    """

    _always = ("model_name", "process_key", "expected_address")

    model_name: str
    process_key: str
    expected_address: str
    force: bool = False
    config_revision: str = ""

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            model_name=read_text(fields, "model_name"),
            process_key=read_text(fields, "process_key"),
            expected_address=read_text(fields, "expected_address"),
            force=read_bool(fields, "force"),
            config_revision=read_text(fields, "config_revision"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStopReply(WireObject):
    """What became of one replica; the first four fields are always sent.

    The frontend drops its row only when `terminated`. An unknown key counts as terminated. `error` may
    accompany a termination: a failed Free does not hold up the stop.
    """

    _always = ("matched", "freed", "terminated", "process_key")

    matched: bool
    freed: bool
    terminated: bool
    process_key: str
    address: str = ""
    error: str = ""

    @classmethod
    def failed(cls, error: str, *, process_key: str, matched: bool = True, address: str = "") -> Self:
        """The reply for a replica that was not stopped, because of `error`."""
        return cls(
            matched=matched,
            freed=False,
            terminated=False,
            process_key=process_key,
            address=address,
            error=told(error),
        )

    @classmethod
    def malformed(cls, error: MalformedMessage) -> Self:
        """The reply to a request that could not be decoded."""
        return cls.failed(str(error), process_key="", matched=False)

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            matched=read_bool(fields, "matched"),
            freed=read_bool(fields, "freed"),
            terminated=read_bool(fields, "terminated"),
            process_key=read_text(fields, "process_key"),
            address=read_text(fields, "address"),
            error=read_text(fields, "error"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningModel(WireObject):
    """One live replica; the frontend matches on `model_id` and `replica_index`, both always sent."""

    _always = ("model_id", "replica_index")

    model_id: str
    replica_index: int
    address: str = ""

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            model_id=read_text(fields, "model_id"),
            replica_index=read_int64(fields, "replica_index"),
            address=read_text(fields, "address"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsRunningReply(WireObject):
    """Every live replica, reply on `models.running` (newer; the request's body is never read).

    `models` is always sent, as a list also when empty. With an `error` the frontend ignores the answer.
    """

    _always = ("models",)

    models: tuple[RunningModel, ...] = ()
    error: str = ""

    @classmethod
    def failed(cls, error: str) -> Self:
        """The reply for a listing that failed with `error`."""
        return cls(error=told(error))

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            models=tuple(map(RunningModel.from_fields, read_object_list(fields, "models"))),
            error=read_text(fields, "error"),
        )
