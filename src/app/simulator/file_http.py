"""HTTP to the file server of one worker: one request, its answer, and what went wrong."""

import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import anyio
import httpx

from ...domain.errors import FileUnwritable, MalformedMessage, WorkerError
from ...domain.messages.document import Fields, decode_object
from ...domain.messages.reading import read_text
from .go_url import go_request_target

_CONNECT_S = 30.0
_LARGEST_ANSWER_BYTES = 64 * 1024 * 1024  # a listing of a million files
_SHOWN_CHARACTERS = 500


@dataclass(eq=False)
class StagingFailed(WorkerError):
    """A file could not be brought to a worker or back; trying again will not help."""

    address: str
    key: str
    reason: str

    def __str__(self) -> str:
        return f"staging {self.key!r} on {self.address}: {self.reason}"


class TransferBroken(StagingFailed):
    """The connection failed, or the worker holds another part of the file than thought: worth a retry."""


@dataclass(frozen=True, slots=True)
class FileReply:
    """A whole answer; `headers` by any letter case."""

    address: str
    key: str
    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def path_header(self) -> str:
        """`X-Local-Path` as the path it is: the bytes sent are those on the worker's disk."""
        raw = next((value for name, value in self.headers.raw if name.lower() == b"x-local-path"), b"")
        return os.fsdecode(raw.strip())

    @property
    def what_it_says(self) -> str:
        """Status and body, for an error text."""
        text = " ".join(self.body.decode(errors="replace").split())[:_SHOWN_CHARACTERS]
        return f"the worker answers {self.status}{': ' + text if text else ''}"

    def fields(self) -> Fields:
        """The JSON object that answers a success.

        Raises:
            StagingFailed: the status is not 200, or there is no such object.
        """
        if self.status != HTTPStatus.OK:
            raise StagingFailed(self.address, self.key, self.what_it_says)
        try:
            return decode_object(self.body)
        except MalformedMessage as error:
            raise StagingFailed(self.address, self.key, f"the answer is unusable: {error.reason}") from error

    def local_path(self) -> str:
        """Where on the worker the file lies.

        Raises:
            StagingFailed: as in `fields`, or it is not said.
        """
        fields = self.fields()
        try:
            path = read_text(fields, "local_path")
        except MalformedMessage as error:
            raise StagingFailed(self.address, self.key, f"the answer is unusable: {error.reason}") from error
        if not path:
            raise StagingFailed(self.address, self.key, "the answer names no local_path")
        return path


@dataclass
class FileHttp:
    """Sends to `http://<address>` as Go does: keys unescaped, no redirect followed, no proxy, no cookies.

    Connecting takes 30 s at most; what follows is bounded by the caller. `transport` stands in for the
    network.
    """

    address: str
    token: str = field(default="", repr=False)
    transport: httpx.AsyncBaseTransport | None = None
    _client: httpx.AsyncClient = field(init=False, repr=False)

    def __post_init__(self) -> None:
        authorization = [(b"Authorization", b"Bearer " + self.token.encode())] if self.token else []
        self._client = httpx.AsyncClient(
            headers=authorization,
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
            transport=self.transport,
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # never used, and quicker made than the default
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            trust_env=False,
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close idle connections; idempotent."""
        await self._client.aclose()

    async def ask(
        self,
        method: str,
        route: str,
        key: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: AsyncIterator[bytes] | None = None,
    ) -> FileReply:
        """One request and its whole answer, whatever the status.

        Raises:
            TransferBroken: the connection failed.
            StagingFailed: the request cannot be sent, or the answer is too large.
            UnsendableKey: as `go_request_target`.
        """
        async with self._exchange(method, route, key, headers, content) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _LARGEST_ANSWER_BYTES:
                    reason = f"the answer exceeds {_LARGEST_ANSWER_BYTES} bytes"
                    raise StagingFailed(self.address, key, reason)
            return FileReply(self.address, key, response.status_code, response.headers, bytes(body))

    async def download(self, route: str, key: str, target: Path) -> int:
        """Store what a GET answers as `target`, whole or not at all; its size in bytes.

        Raises:
            StagingFailed: the status is not 200, or as in `ask`.
            FileUnwritable: it cannot be stored.
        """
        part = target.with_name(f".{target.name}.part")
        try:
            async with self._exchange("GET", route, key) as response:
                if response.status_code != HTTPStatus.OK:
                    await response.aread()
                    reply = FileReply(
                        self.address, key, response.status_code, response.headers, response.content
                    )
                    raise StagingFailed(self.address, key, reply.what_it_says)
                size_bytes = await _store(response.aiter_bytes(), part)
            await anyio.Path(part).replace(target)
        except OSError as error:
            raise FileUnwritable(target, error.strerror or str(error)) from error
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.Path(part).unlink(missing_ok=True)
        return size_bytes

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        route: str,
        key: str,
        headers: Mapping[str, str] | None = None,
        content: AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        target = go_request_target(route, key)
        # The target goes out as it is; the URL, which httpx would tidy up, serves transports without a wire.
        url = f"http://{self.address}{target.decode(errors='replace')}"
        try:
            request = self._client.build_request(
                method, url, headers=headers, content=content, extensions={"target": target}
            )
            response = await self._client.send(request, stream=True)
            try:
                yield response
            finally:
                await response.aclose()
        except httpx.LocalProtocolError:
            # Its text quotes the header, which may be the token: neither shown nor chained.
            reason = "the request cannot be sent; is there a line break or a space in the token or the key?"
            raise StagingFailed(self.address, key, reason) from None
        except httpx.TransportError as error:
            raise TransferBroken(self.address, key, str(error) or type(error).__name__) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise StagingFailed(self.address, key, str(error) or type(error).__name__) from error


async def _store(chunks: AsyncIterator[bytes], part: Path) -> int:
    size_bytes = 0
    async with await anyio.open_file(part, "wb") as file:
        async for chunk in chunks:
            size_bytes += await file.write(chunk)
    return size_bytes
