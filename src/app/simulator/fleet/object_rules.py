"""Rules about files that come through the object store: whole, what the store held, no more than allowed."""

from dataclasses import dataclass, field
from pathlib import Path

import anyio

from ....domain.cache_janitor import EVERY_S, REST_S
from ....domain.errors import MalformedMessage
from ....domain.file_names import is_private_name
from ....domain.messages.files import (
    FilesEnsureReply,
    FilesEnsureRequest,
    FilesListdirReply,
    FilesStageReply,
    FilesStageRequest,
)
from .assembly import CACHE_LIMIT_BYTES
from .host import Host, key_of
from .life import Life
from .objects import FleetObjectStore
from .reply_rules import Asked, ReplyCheck
from .violations import Verdict

CACHE = Path("/node/cache")
_TEMPORARY = CACHE / "staging-tmp"
_MODELS = CACHE / "models"
_SWEPT_S = REST_S + EVERY_S + 120.0  # a file that nobody wanted for so long has met a sweep


@dataclass(eq=False)
class ObjectRules:
    """Looks at cached files as they appear, and at what replies say about them."""

    verdict: Verdict
    store: FleetObjectStore
    _wanted_s: dict[int, dict[Path, float]] = field(default_factory=dict)  # by host number
    _deleted_s: dict[int, float] = field(default_factory=dict)  # when a model was last deleted there

    @property
    def checks(self) -> dict[str, ReplyCheck]:
        """What to do with the replies to which command."""
        return {
            "files.ensure": self._ensured,
            "files.stage": self._staged,
            "files.listdir": self._listed,
            "model.delete": self._model_deleted,
        }

    def appeared(self, host: Host, path: Path) -> None:
        """A file was put in place at `path`: it must be the whole of something the store has held."""
        if is_private_name(path.name) or path.is_relative_to(_TEMPORARY):
            return
        content = host.filesystem.get(path)
        held = self.store.held(str(path.relative_to(CACHE)), since_s=0.0)
        if content is not None and held and content not in held:
            what = f"{path} is not what the object store held: {len(content)} bytes"
            self.verdict.fault("torn-file", host, what)

    def look(self, host: Host) -> None:
        """A worker has put some file in place, or was killed: every file to be seen is whole."""
        if host.has_store:
            for path in host.filesystem.files(CACHE):
                self.appeared(host, path)

    def within_limit(self, life: Life) -> None:
        """Beyond its limit the cache holds only what was wanted lately, or what a backend works with."""
        host, now_s = life.host, anyio.current_time()
        if not host.has_store or host.clock.off_s or not life.ready_s or now_s - life.ready_s < _SWEPT_S:
            return
        files = host.filesystem.files(_MODELS)
        sizes = {path: len(host.filesystem.get(path) or b"") for path in files}
        if sum(sizes.values()) <= CACHE_LIMIT_BYTES:
            return
        wanted = self._wanted_s.get(host.number, {})
        running = {key_of(process).rpartition("#")[0] for process in host.groups}
        for path in files:
            idle_s = now_s - wanted.get(path, now_s)
            if idle_s > _SWEPT_S and path.relative_to(_MODELS).parts[0] not in running:
                what = f"{path} is still there after {idle_s:.0f} s, with {sum(sizes.values())} bytes in all"
                self.verdict.fault("cache-limit", host, what)

    def _ensured(self, host: Host, asked: Asked, payload: bytes) -> None:
        """The file of a successful reply holds what the store held between request and reply."""
        try:
            key = FilesEnsureRequest.from_wire(asked.payload).key
        except MalformedMessage:
            return
        reply = FilesEnsureReply.from_wire(payload)
        if reply.error:
            return
        path = Path(reply.local_path)
        self._wanted_s.setdefault(host.number, {})[path] = anyio.current_time()
        content = host.filesystem.get(path)
        if content is None:
            if self._deleted_s.get(host.number, -1.0) < asked.at_s:
                self.verdict.fault("stale-object", host, f"{path} is given for {key}, and nothing is there")
        elif content not in self.store.held(key, asked.at_s):
            what = f"{path} is given for {key}, and holds what the store did not hold since the request"
            self.verdict.fault("stale-object", host, what)

    def _staged(self, host: Host, asked: Asked, payload: bytes) -> None:
        """A successful reply means that the store holds the file."""
        if FilesStageReply.from_wire(payload).error:
            return
        request = FilesStageRequest.from_wire(asked.payload)
        content = host.filesystem.get(Path(request.local_path))
        if content is not None and content not in self.store.held(request.key, asked.at_s):
            what = f"{request.local_path} counts as staged, and the store does not hold it as {request.key}"
            self.verdict.fault("stale-object", host, what)

    def _listed(self, host: Host, asked: Asked, payload: bytes) -> None:
        del asked
        hidden = [
            path
            for path in FilesListdirReply.from_wire(payload).files
            if is_private_name(path.split("/")[-1])
        ]
        if hidden:
            self.verdict.fault("torn-file", host, f"unfinished files are listed: {', '.join(hidden)}")

    def _model_deleted(self, host: Host, asked: Asked, payload: bytes) -> None:
        del asked, payload
        self._deleted_s[host.number] = anyio.current_time()
