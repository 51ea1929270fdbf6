"""The node as it was registered, kept on disk so that a restarted worker can go on as the same one."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

from .errors import FileUnreadable, FileUnwritable, MalformedMessage
from .messages.document import Fields, decode_object
from .messages.reading import read_int64, read_object, read_text
from .messages.registration import RegisterReply, RegisterRequest
from .ports.filesystem import FileSystem

log = logging.getLogger(__name__)

_VERSION = 1
_LIMIT_BYTES = 256 * 1024  # labels are the longest part; the frontend's columns hold far less
# What changes by itself and comes with every heartbeat anyway, and the secret.
_NOT_STATED = frozenset({"token", "available_vram", "available_ram", "total_disk", "available_disk"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """What a registration said and was answered.

    `frontend` is the URL it went to; `stated` is what the node said of itself, less what changes by itself
    and less the token. The NATS pair is "" where the frontend minted none.
    """

    node_id: str
    status: str
    frontend: str
    stated: Mapping[str, str]
    nats_jwt: str = field(default="", repr=False)
    nats_user_seed: str = field(default="", repr=False)

    @classmethod
    def of(cls, frontend: str, request: RegisterRequest, reply: RegisterReply) -> Self:
        """The node that `reply` made of `request`."""
        return cls(
            node_id=reply.id,
            status=reply.status,
            frontend=frontend,
            stated=stated_by(request),
            nats_jwt=reply.nats_jwt,
            nats_user_seed=reply.nats_user_seed,
        )

    @property
    def reply(self) -> RegisterReply:
        """What the frontend answered, as far as it matters."""
        return RegisterReply(
            id=self.node_id,
            status=self.status,
            nats_jwt=self.nats_jwt,
            nats_user_seed=self.nats_user_seed,
        )

    def to_bytes(self) -> bytes:
        """The identity as a file."""
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The identity that `content` holds.

        Raises:
            MalformedMessage: it is none of this version.
        """
        fields = decode_object(content)
        if (version := read_int64(fields, "version")) != _VERSION:
            raise MalformedMessage(f'field "version": want {_VERSION}, got {version}')
        node_id = read_text(fields, "node_id")
        if not node_id:
            raise MalformedMessage('field "node_id": want a node id, got nothing')
        return cls(
            node_id=node_id,
            status=read_text(fields, "status"),
            frontend=read_text(fields, "frontend"),
            stated=_texts(read_object(fields, "stated")),
            nats_jwt=read_text(fields, "nats_jwt"),
            nats_user_seed=read_text(fields, "nats_user_seed"),
        )


def stated_by(request: RegisterRequest) -> dict[str, str]:
    """What `request` says that only another registration can change, each value as JSON."""
    values = request.to_fields()
    return {name: json.dumps(value) for name, value in values.items() if name not in _NOT_STATED}


@dataclass(frozen=True)
class IdentityStore:
    """One file at `path`, readable by the worker's user alone: it may hold NATS credentials.

    Nothing here is fatal: without the file the node registers, as it would on its first start.
    """

    filesystem: FileSystem
    path: Path

    async def save(self, identity: NodeIdentity) -> None:
        """Keep `identity` in place of an older one; a failure is logged, and the older one goes."""
        try:
            await self.filesystem.make_directory(self.path.parent, mode=0o700)
            await self.filesystem.write(self.path, identity.to_bytes(), mode=0o600)
        except FileUnwritable as error:
            log.warning("identity not kept, the next start registers anew: error=%s", error)
            await self.forget()

    async def load(self) -> NodeIdentity | None:
        """The identity that was saved last; None without one, or where it cannot be read (logged)."""
        if await self.filesystem.stat(self.path) is None:
            return None
        try:
            return NodeIdentity.from_bytes(await self.filesystem.read(self.path, limit_bytes=_LIMIT_BYTES))
        except (FileUnreadable, MalformedMessage) as error:
            reason = error.reason  # a MalformedMessage begins with words about requests
            log.warning("identity unreadable, the node registers anew: file=%s error=%s", self.path, reason)
            return None

    async def approved(self, status: str) -> None:
        """The node has another status now, which no registration told."""
        if (identity := await self.load()) is not None:
            await self.save(replace(identity, status=status))

    async def forget(self) -> None:
        """The node is leaving, or no longer what it was: the next start must register."""
        try:
            await self.filesystem.remove_tree(self.path)
        except FileUnwritable as error:
            log.error("identity not removed; delete it by hand before the next start: error=%s", error)


def _texts(fields: Fields) -> dict[str, str]:
    return {name: value for name, value in fields.pairs if isinstance(value, str)}
