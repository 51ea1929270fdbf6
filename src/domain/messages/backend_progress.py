"""Progress of an install or upgrade, for frontends that sent an `op_id`.

Source: LocalAI core/services/messaging/subjects.go, BackendInstallProgressEvent.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from .document import Fields
from .reading import read_float, read_text
from .wire import WireObject


class InstallPhase(StrEnum):
    """What an install is at. Upstream defines all four and emits `downloading` only."""

    RESOLVING = "resolving"
    DOWNLOADING = "downloading"
    EXTRACTING = "extracting"
    STARTING = "starting"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInstallProgress(WireObject):
    """How far an operation has come; published on `NodeSubjects.install_progress(op_id)`.

    `op_id`, `node_id` (raw, unlike in the subject), `backend` and `percentage` (0 to 100, finite) are
    always sent. `current` and `total` are for humans (`412.0 MiB`). `phase` is text because a
    frontend must bear phases it does not know.
    """

    _always = ("op_id", "node_id", "backend", "percentage")

    op_id: str
    node_id: str
    backend: str
    file_name: str = ""
    current: str = ""
    total: str = ""
    percentage: float = 0.0
    phase: str = ""

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            op_id=read_text(fields, "op_id"),
            node_id=read_text(fields, "node_id"),
            backend=read_text(fields, "backend"),
            file_name=read_text(fields, "file_name"),
            current=read_text(fields, "current"),
            total=read_text(fields, "total"),
            percentage=read_float(fields, "percentage"),
            phase=read_text(fields, "phase"),
        )
