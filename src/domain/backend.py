"""What backends and their processes are called: safe backend names, and the key of a replica."""

import re
from dataclasses import dataclass
from typing import NewType, Self

from .errors import WorkerError

BackendName = NewType("BackendName", str)
"""A backend name that is safe as one path component; made by `parse_backend_name` only."""

_LONGEST_NAME_BYTES = 255  # NAME_MAX of every file system in use
_HIGHEST_REPLICA = 2**31 - 1  # replica_index is an int32 on the wire
_SHOWN_CHARACTERS = 80
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SUFFIX = re.compile("0|[1-9][0-9]{0,9}")  # what str() gives for an int32, so that keys round-trip


@dataclass(eq=False)
class UnsafeBackendName(WorkerError):
    """A backend name that could lead out of the backends directory, or could not lie in it."""

    name: str
    problem: str

    def __str__(self) -> str:
        shown = ascii(self.name[:_SHOWN_CHARACTERS]) + ("..." if len(self.name) > _SHOWN_CHARACTERS else "")
        return (
            f"unsafe backend name {shown}: it {self.problem}; "
            "use a plain directory name such as 'llama-cpp', without separators or a leading dot"
        )


@dataclass(eq=False)
class MalformedReplicaKey(WorkerError):
    """A text or a pair of values that names no replica."""

    text: str

    def __str__(self) -> str:
        shown = ascii(self.text[:_SHOWN_CHARACTERS]) + ("..." if len(self.text) > _SHOWN_CHARACTERS else "")
        return (
            f"malformed process key {shown}: want a model id or backend name, '#' and a replica index "
            f"of 0 to {_HIGHEST_REPLICA}, such as 'qwen3-0.6b#0'"
        )


def parse_backend_name(text: str) -> BackendName:
    """`text` as a backend name, which upstream joins to paths and executes unchecked.

    Raises:
        UnsafeBackendName: `text` is no single path component, begins with a dot (our staging
            directories do), holds a control character, or is longer than file systems allow.
    """
    if problem := _problem(text):
        raise UnsafeBackendName(text, problem)
    return BackendName(text)


def _problem(name: str) -> str | None:
    if not name:
        return "is empty"
    if "/" in name or "\\" in name:
        return "contains a path separator"
    if name.startswith("."):
        return "begins with a dot"
    if _CONTROL.search(name):
        return "contains a control character"
    if _SURROGATE.search(name):
        return "is not valid UTF-8"
    if (size := len(name.encode())) > _LONGEST_NAME_BYTES:
        return f"is {size} bytes long, more than {_LONGEST_NAME_BYTES}"
    return None


@dataclass(frozen=True, slots=True)
class ReplicaKey:
    """Names one backend process: replica number `replica` of `model` on this node; in text `model#N`.

    `model` is the model id, or the backend's name where a request carries none, and may contain `#`
    itself. Frontends that send no replica index mean replica 0.
    Source: LocalAI core/services/worker/supervisor.go.

    Raises:
        MalformedReplicaKey: `model` is empty or `replica` is outside what the wire can carry.
    """

    model: str
    replica: int = 0

    def __post_init__(self) -> None:
        if not self.model or not 0 <= self.replica <= _HIGHEST_REPLICA:
            raise MalformedReplicaKey(str(self))

    def __str__(self) -> str:
        return f"{self.model}#{self.replica}"

    @classmethod
    def for_request(cls, *, model_id: str, backend: str, replica: int) -> Self:
        """The key of the process that a request for `model_id`, or without one for `backend`, starts."""
        return cls(model_id or backend, replica)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key that `text` writes out, split at the last `#`.

        Raises:
            MalformedReplicaKey: nothing stands before that `#`, or no plain replica index after it.
        """
        model, _, suffix = text.rpartition("#")
        if not _SUFFIX.fullmatch(suffix):
            raise MalformedReplicaKey(text)
        return cls(model, int(suffix))

    def matches(self, identifier: str) -> bool:
        """Whether a stop or unload of `identifier` means this process.

        A text of the form `model#N` means exactly that replica; any other is a bare model id and means
        all its replicas. Upstream differs in two cases, both with `#` in a model id: there a bare
        `org/model#x` means nothing, and `org/model` also means the replicas of `org/model#x`.
        """
        return identifier == (str(self) if _is_key(identifier) else self.model)


def _is_key(text: str) -> bool:
    try:
        ReplicaKey.parse(text)
    except MalformedReplicaKey:
        return False
    return True
