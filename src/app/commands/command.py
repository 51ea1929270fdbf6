"""What serving a subject takes: a payload decoded, handled, and answered whatever happens."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from ...domain.errors import MalformedMessage, WorkerError
from ...domain.messages.backend import BackendDeleteReply, BackendInstallReply, BackendUpgradeReply
from ...domain.messages.backend_list import BackendListReply
from ...domain.messages.error_text import cap_error
from ...domain.messages.files import FilesEnsureReply, FilesListdirReply, FilesStageReply, FilesTempReply
from ...domain.messages.model import ModelDeleteReply, ModelsRunningReply, ModelStopReply, ModelUnloadReply

log = logging.getLogger(__name__)

_LONGEST_ERROR_BYTES = 64 * 1024  # longer texts help nobody (N-B30)

Reply = (
    BackendInstallReply
    | BackendUpgradeReply
    | BackendDeleteReply
    | BackendListReply
    | ModelUnloadReply
    | ModelStopReply
    | ModelDeleteReply
    | ModelsRunningReply
    | FilesEnsureReply
    | FilesStageReply
    | FilesTempReply
    | FilesListdirReply
)
Asked = TypeVar("Asked")


@dataclass(frozen=True, slots=True)
class Command:
    """One subject: how a payload is handled, and the reply for a failure nobody foresaw.

    A subject without replies has a `handle` that returns None, and no `failed`. `new_work` commands are
    refused once the worker is going down.
    """

    subject: str
    handle: Callable[[bytes], Awaitable[Reply | None]]
    failed: Callable[[str], Reply] | None = None
    new_work: bool = False


def request(
    subject: str,
    decode: Callable[[bytes], Asked],
    handle: Callable[[Asked], Awaitable[Reply]],
    failed: Callable[[str], Reply],
    malformed: Callable[[MalformedMessage], Reply] | None = None,
    *,
    new_work: bool = False,
) -> Command:
    """A command with a reply: a body that does not decode is `malformed`, a foreseen failure `failed`."""

    async def answer(payload: bytes) -> Reply:
        try:
            asked = decode(payload)
        except MalformedMessage as error:
            log.warning("request refused: subject=%s error=%s", subject, error)
            return malformed(error) if malformed else failed(str(error))
        try:
            return await handle(asked)
        except WorkerError as error:
            log.warning("request failed: subject=%s error=%s", subject, error)
            return failed(str(error))

    return Command(subject, answer, failed, new_work)


def unread(_payload: bytes) -> None:
    """Decodes requests whose body says nothing."""


def fitting(reply: Reply, limit_bytes: int, failed: Callable[[str], Reply]) -> bytes:
    """`reply` as written, in at most `limit_bytes`: what exceeds them the bus would drop.

    Its error text is cut; a reply whose other fields alone are too large gives way to one that says so.
    """
    written = _cut(reply, limit_bytes)
    if len(written) <= limit_bytes:
        return written
    why = (
        f"the reply takes {len(written)} bytes and the bus only {limit_bytes}; raise max_payload on the NATS "
        "server"
    )
    return _cut(failed(f"{why}; it began: {reply.error}" if reply.error else why), limit_bytes)


def _cut(reply: Reply, limit_bytes: int) -> bytes:
    if not reply.error:
        written = reply.to_wire()
        if len(written) > limit_bytes and isinstance(reply, FilesListdirReply):
            return reply.too_long(len(written), limit_bytes).to_wire()
        return written
    room = limit_bytes - len(replace(reply, error="-").to_wire())
    return replace(reply, error=cap_error(reply.error, max(1, min(room, _LONGEST_ERROR_BYTES)))).to_wire()
