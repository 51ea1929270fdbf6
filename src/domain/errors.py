"""The failures the worker foresees; the type says what a caller can do next, the fields say with what.

Errors of one service live beside it; here are those that ports promise and several floors share.
"""

from dataclasses import dataclass, field
from pathlib import Path


class WorkerError(Exception):
    """A failure the worker foresees and reports; any other exception is a bug."""


# Not frozen: contextlib assigns __traceback__ as an error passes through.


@dataclass(eq=False)
class BusUnavailable(WorkerError):
    """The message bus cannot be reached or refuses us; `retrying`: the adapter goes on trying by itself."""

    servers: str  # credentials masked
    reason: str
    retrying: bool = False

    def __str__(self) -> str:
        tail = "; retrying" if self.retrying else "; check LOCALAI_NATS_URL and the server"
        return f"message bus {self.servers} is unavailable: {self.reason}{tail}"


@dataclass(eq=False)
class BusLoginRefused(BusUnavailable):
    """The message bus server does not take our login, or wants one where we have none."""

    def __str__(self) -> str:
        remedy = "; retrying" if self.retrying else "; check LOCALAI_NATS_URL and the NATS credentials"
        return f"message bus {self.servers} refuses the login: {self.reason}{remedy}"


@dataclass(eq=False)
class SubscriptionDenied(WorkerError):
    """The bus server does not let us listen on a subject the worker needs."""

    subject: str
    reason: str

    def __str__(self) -> str:
        return (
            f"subscription to {self.subject} denied by NATS server (check JWT sub allow list): {self.reason}"
        )


@dataclass(eq=False)
class NoResponders(WorkerError):
    """Nobody listens on the subject of a request."""

    subject: str

    def __str__(self) -> str:
        return f"nobody answers on {self.subject}; is the worker running and registered under this node id?"


@dataclass(eq=False)
class RequestTimedOut(WorkerError):
    """Somebody listens, but no reply came in time."""

    subject: str
    timeout_s: float

    def __str__(self) -> str:
        return f"no reply on {self.subject} within {self.timeout_s:g} s"


@dataclass(eq=False)
class PayloadTooLarge(WorkerError):
    """A message is larger than the bus takes."""

    subject: str
    size_bytes: int
    limit_bytes: int

    def __str__(self) -> str:
        sizes = f"{self.size_bytes} bytes, the bus takes {self.limit_bytes}"
        return f"message for {self.subject} is too large: {sizes}"


@dataclass(eq=False)
class FrontendUnavailable(WorkerError):
    """The frontend could not be reached or answered with a server error; retrying is safe."""

    url: str
    reason: str

    def __str__(self) -> str:
        return f"frontend {self.url} is unavailable: {self.reason}"


@dataclass(eq=False)
class FrontendRefused(WorkerError):
    """The frontend answered and said no (4xx): the token, a field or the address is wrong."""

    url: str
    status: int
    message: str

    def __str__(self) -> str:
        hint = (
            "; check LOCALAI_REGISTRATION_TOKEN against the frontend's" if self.status in {401, 403} else ""
        )
        return f"frontend {self.url} answered {self.status}: {self.message}{hint}"


@dataclass(eq=False)
class NodeForgotten(WorkerError):
    """The frontend answers 404 for our node id: its row is gone, or its database had a hiccup."""

    node_id: str

    def __str__(self) -> str:
        return f"the frontend does not know node {self.node_id}"


@dataclass(eq=False)
class BackendUnavailable(WorkerError):
    """A backend's gRPC port does not answer the call; `code` is the gRPC status name."""

    address: str
    code: str
    reason: str

    def __str__(self) -> str:
        return f"backend at {self.address}: {self.code}: {self.reason}"


@dataclass(eq=False)
class BackendUnhealthy(WorkerError):
    """A backend answers Health with something other than OK."""

    address: str
    message: str

    def __str__(self) -> str:
        return f"health check failed: {self.message!r} from {self.address}"


@dataclass(eq=False)
class ModelLoadFailed(WorkerError):
    """A backend refused LoadModel."""

    address: str
    message: str

    def __str__(self) -> str:
        return f"backend at {self.address} could not load the model: {self.message}"


@dataclass(eq=False)
class SpawnFailed(WorkerError):
    """The operating system could not start a program."""

    program: Path
    reason: str

    def __str__(self) -> str:
        return f"cannot start {self.program}: {self.reason}"


@dataclass(eq=False)
class FileUnreadable(WorkerError):
    """A file or directory cannot be read as what it should be."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"cannot read {self.path}: {self.reason}"


@dataclass(eq=False)
class FileUnwritable(WorkerError):
    """A file or directory cannot be written; what was there before is untouched."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"cannot write {self.path}: {self.reason}"


@dataclass(eq=False)
class NoSpace(FileUnwritable):
    """The file system is full; free some and send the file again."""


@dataclass(eq=False)
class FileInUse(WorkerError):
    """Somebody else writes the partial file of this path at this moment; a later attempt may go on."""

    path: Path

    def __str__(self) -> str:
        return f"another upload of {self.path} is running; try again later"


@dataclass(eq=False)
class PathEscapes(WorkerError):
    """A path resolves to a place outside the directory it must stay in."""

    path: str
    root: Path

    def __str__(self) -> str:
        return f'path "{self.path}" is outside allowed directory {self.root}'


@dataclass(eq=False)
class ArtifactUnavailable(WorkerError):
    """A source cannot be read: missing, unreachable or refused. Nothing was installed."""

    uri: str
    reason: str

    def __str__(self) -> str:
        return f'cannot fetch "{self.uri}": {self.reason}'


@dataclass(eq=False)
class ArtifactMissing(ArtifactUnavailable):
    """The source was reached and says that it has no such thing; asking again cannot help."""


@dataclass(eq=False)
class ArtifactInvalid(WorkerError):
    """A source was read and is not what it claims: wrong digest, broken archive, hostile entry."""

    uri: str
    reason: str

    def __str__(self) -> str:
        return f'"{self.uri}" is not a valid artifact: {self.reason}'


@dataclass(eq=False)
class UnsupportedSource(WorkerError):
    """No adapter reads this kind of uri."""

    uri: str
    supported: tuple[str, ...] = field(default_factory=tuple)

    def __str__(self) -> str:
        return f'no reader for source "{self.uri}"; supported: {", ".join(self.supported)}'


@dataclass(eq=False)
class GalleryUnreadable(WorkerError):
    """A gallery index cannot be fetched or is not a YAML list of entries."""

    gallery: str
    url: str
    reason: str

    def __str__(self) -> str:
        return f'failed to read gallery elements: gallery "{self.gallery}" at {self.url}: {self.reason}'


@dataclass(eq=False)
class MalformedMessage(WorkerError):
    """Bytes from the wire that are not the message they should be; sending them again cannot help.

    `reason` names the field, what came and what is wanted. The text begins as upstream's replies to
    requests it cannot decode. Source: LocalAI core/cli/worker.go.
    """

    reason: str

    def __str__(self) -> str:
        return f"{self.summary}: {self.reason}"

    @property
    def summary(self) -> str:
        """The text without the reason: all that upstream tells on model.delete and files.*."""
        return "invalid request"


@dataclass(eq=False)
class SignatureInvalid(WorkerError):
    """A signature that does not hold."""

    reason: str

    def __str__(self) -> str:
        return f"the signature does not hold: {self.reason}"


@dataclass(eq=False)
class VerifierUnavailable(WorkerError):
    """No signature can be verified on this node right now."""

    reason: str

    def __str__(self) -> str:
        return f"no signature can be verified: {self.reason}"


@dataclass(eq=False)
class DownloadRefused(ArtifactUnavailable):
    """A server that was reached and will not give the file; asking again cannot help."""
