"""Messages that install, upgrade, stop and delete backends.

Source: LocalAI core/services/messaging/subjects.go.
"""

from dataclasses import dataclass
from typing import Self

from ..errors import MalformedMessage
from .document import Fields, decode_object
from .error_text import told
from .reading import read_bool, read_int32, read_text, read_text_list
from .wire import WireObject
from .writing import NO_BODY, encode_object


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInstallRequest(WireObject):
    """Install a backend where it is missing and start it for a model; request on `backend.install`.

    `backend` (always sent) may be a directory name, an alias, a meta name, `gallery@name`, or empty with
    a `uri`. No `model_id` means an administrator's install or, from a seed frontend, an upgrade.
    `backend_galleries` is JSON text: non-empty, it replaces the worker's own galleries for this request.
    `uri`, `name` and `alias` describe an external source. `force` asks for a reinstall; only newer
    frontends send it, and `replica_index` and `op_id`. An `op_id` asks for progress events.
    """

    _always = ("backend",)

    backend: str
    model_id: str = ""
    backend_galleries: str = ""
    uri: str = ""
    name: str = ""
    alias: str = ""
    replica_index: int = 0
    force: bool = False
    op_id: str = ""

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            backend=read_text(fields, "backend"),
            model_id=read_text(fields, "model_id"),
            backend_galleries=read_text(fields, "backend_galleries"),
            uri=read_text(fields, "uri"),
            name=read_text(fields, "name"),
            alias=read_text(fields, "alias"),
            replica_index=read_int32(fields, "replica_index"),
            force=read_bool(fields, "force"),
            op_id=read_text(fields, "op_id"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInstallReply(WireObject):
    """What became of an install; `success` is always sent.

    `address` is the `host:port` the frontend dials. A success without it sends the frontend to the
    node's base address, where another model may listen: never reply one. `previous_death` is ours, and
    frontends skip what they do not know: how the replica's last process ended, if nobody asked it to.
    """

    _always = ("success",)

    success: bool
    address: str = ""
    error: str = ""
    previous_death: str = ""

    @classmethod
    def failed(cls, error: str) -> Self:
        """The reply for an install that failed with `error`."""
        return cls(success=False, error=told(error))

    @classmethod
    def malformed(cls, error: MalformedMessage) -> Self:
        """The reply to a request that could not be decoded."""
        return cls.failed(str(error))

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            success=read_bool(fields, "success"),
            address=read_text(fields, "address"),
            error=read_text(fields, "error"),
            previous_death=read_text(fields, "previous_death"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendUpgradeRequest(WireObject):
    """Stop a backend's processes and reinstall it, starting nothing; request on `backend.upgrade` (newer).

    Fields as in `BackendInstallRequest`; `backend` is always sent, `replica_index` only informs.
    """

    _always = ("backend",)

    backend: str
    backend_galleries: str = ""
    uri: str = ""
    name: str = ""
    alias: str = ""
    replica_index: int = 0
    op_id: str = ""

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            backend=read_text(fields, "backend"),
            backend_galleries=read_text(fields, "backend_galleries"),
            uri=read_text(fields, "uri"),
            name=read_text(fields, "name"),
            alias=read_text(fields, "alias"),
            replica_index=read_int32(fields, "replica_index"),
            op_id=read_text(fields, "op_id"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendDeleteRequest(WireObject):
    """Stop a backend's processes and delete it; request on `backend.delete`.

    `backend`, always sent, may be a directory name, an alias, a meta name or `gallery@name`.
    """

    _always = ("backend",)

    backend: str

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(backend=read_text(fields, "backend"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoppingReply(WireObject):
    """An outcome with the process keys (`model#N`) of every process confirmed dead, also on failure.

    `success` is always sent. `reports_stopped_processes` makes an absent list mean "none stopped"; a
    frontend ignores the list without it, and a seed frontend ignores both.
    """

    _always = ("success",)

    success: bool
    error: str = ""
    stopped_process_keys: tuple[str, ...] = ()
    reports_stopped_processes: bool = False

    @classmethod
    def succeeded(cls, *, stopped: tuple[str, ...]) -> Self:
        """The reply for a success that ended the processes `stopped`."""
        return cls(success=True, stopped_process_keys=stopped, reports_stopped_processes=True)

    @classmethod
    def failed(cls, error: str, *, stopped: tuple[str, ...] = ()) -> Self:
        """The reply for a failure with `error` after the processes `stopped` had ended."""
        return cls(
            success=False, error=told(error), stopped_process_keys=stopped, reports_stopped_processes=True
        )

    @classmethod
    def malformed(cls, error: MalformedMessage) -> Self:
        """The reply to a request that could not be decoded; the only one that reports no processes."""
        return cls(success=False, error=str(error))

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            success=read_bool(fields, "success"),
            error=read_text(fields, "error"),
            stopped_process_keys=tuple(read_text_list(fields, "stopped_process_keys")),
            reports_stopped_processes=read_bool(fields, "reports_stopped_processes"),
        )


class BackendUpgradeReply(_StoppingReply):
    """What became of an upgrade, and which processes it ended."""

    __slots__ = ()


class BackendDeleteReply(_StoppingReply):
    """What became of a deletion, and which processes it ended."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStopRequest(WireObject):
    """Stop processes without an answer; published on `backend.stop`.

    `backend` names a model, a `model#N` or a backend; empty means every process. `force` (newer) skips
    the Free call. A body that does not decode raises rather than stopping everything, as seed workers
    did. Source: LocalAI core/services/worker/supervisor.go.
    """

    _always = ("backend",)

    backend: str = ""
    force: bool = False

    @property
    def stops_all(self) -> bool:
        """Whether every process of the worker is meant."""
        return not self.backend

    @classmethod
    def from_wire(cls, payload: bytes) -> Self:
        """The request; an empty body means every process, as `null` and `{}` do.

        Raises:
            MalformedMessage: the body says something else than this request; nothing may be stopped.
        """
        return cls.from_fields(decode_object(payload or NO_BODY))

    def to_wire(self) -> bytes:
        """As the frontend publishes it: an unforced stop of everything is the body `null`."""
        return NO_BODY if self.stops_all and not self.force else encode_object(self.to_fields())

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(backend=read_text(fields, "backend"), force=read_bool(fields, "force"))
