"""The golden exchanges of tests/golden, and which message class speaks which subject."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localai_worker.domain.messages import backend, backend_list, backend_progress, files, model
from localai_worker.domain.messages.wire import WireObject

GOLDEN = Path(__file__).parents[2] / "golden"

# By the part of the subject after the node: the request's class and the reply's, None for no message.
CONVERSATIONS: dict[str, tuple[type[WireObject] | None, type[WireObject] | None]] = {
    "backend.install": (backend.BackendInstallRequest, backend.BackendInstallReply),
    "backend.upgrade": (backend.BackendUpgradeRequest, backend.BackendUpgradeReply),
    "backend.install.0b7f2c4e-6a57-11f0-9d0a-0242ac120002.progress": (
        backend_progress.BackendInstallProgress,
        None,
    ),
    "backend.stop": (backend.BackendStopRequest, None),
    "backend.delete": (backend.BackendDeleteRequest, backend.BackendDeleteReply),
    "backend.list": (None, backend_list.BackendListReply),
    "model.unload": (model.ModelUnloadRequest, model.ModelUnloadReply),
    "model.stop": (model.ModelStopRequest, model.ModelStopReply),
    "model.delete": (model.ModelDeleteRequest, model.ModelDeleteReply),
    "models.running": (None, model.ModelsRunningReply),
    "stop": (None, None),
    "files.ensure": (files.FilesEnsureRequest, files.FilesEnsureReply),
    "files.stage": (files.FilesStageRequest, files.FilesStageReply),
    "files.listdir": (files.FilesListdirRequest, files.FilesListdirReply),
}


@dataclass(frozen=True)
class Exchange:
    """One file of golden/nats; wires are None where nothing is sent."""

    name: str
    subject: str
    request: Any
    reply: Any
    request_wire: bytes | None
    reply_wire: bytes | None

    @property
    def tail(self) -> str:
        return self.subject.split(".", 2)[2]


def nats_exchanges() -> list[Exchange]:
    return [_exchange(path) for path in sorted((GOLDEN / "nats").glob("*.json"))]


def http_exchange(name: str) -> Any:
    return json.loads((GOLDEN / "http" / f"{name}.json").read_text())


def compact(document: object) -> bytes:
    """`document` as compact JSON with its own key order and Go's escapes."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").encode()


def stated(message: WireObject) -> dict[str, object]:
    """What `message` says, as plain JSON values, without zero values."""
    plain = json.loads(json.dumps(asdict(message)))  # tuples become lists
    return {name: _thinned(value) for name, value in plain.items() if value}


def thinned(document: dict[str, object]) -> dict[str, object]:
    """A golden's JSON object without zero values, at any depth."""
    return {name: _thinned(value) for name, value in document.items() if value}


def _thinned(value: Any) -> Any:
    if isinstance(value, dict):
        return thinned(value)
    return [_thinned(item) for item in value] if isinstance(value, list) else value


def _exchange(path: Path) -> Exchange:
    golden = json.loads(path.read_text())
    request_wire, reply_wire = golden.get("request_wire"), golden.get("reply_wire")
    return Exchange(
        name=path.stem,
        subject=golden["subject"],
        request=golden["request"],
        reply=golden["reply"],
        request_wire=None if request_wire is None else request_wire.encode(),
        reply_wire=None if reply_wire is None else reply_wire.encode(),
    )
