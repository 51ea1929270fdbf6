"""A hub of models over HTTP: the part of Hugging Face's API that tells versions and files."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from anyio import to_thread

from ...domain.errors import ArtifactInvalid, DownloadRefused
from ...domain.masking import mask_url
from ...domain.ports.model_hub import HubFile
from .web import bearer, require_success, web_client, web_errors

if TYPE_CHECKING:
    import httpx

_COMMIT = re.compile(r"[0-9a-f]{40}")
_VERSION_BYTES, _PAGE_BYTES = 8 << 20, 32 << 20  # as upstream
_PAGES = 10_000
_NEXT = re.compile(r"""<([^<>]*)>\s*(?:;[^,]*)?;\s*rel\s*=\s*"?next"?\s*(?:[;,]|$)""", re.IGNORECASE)
_CLOSED = frozenset({401, 403})


@dataclass(frozen=True)
class HttpModelHub:
    """A `ModelHub` at `endpoint`.

    Source: LocalAI pkg/huggingface-api/snapshot.go.
    """

    endpoint: str
    connect_s: float = 20.0
    silence_s: float = 60.0

    async def commit(self, repository: str, revision: str, *, token: str = "") -> str:
        url = f"{self._api(repository)}/revision/{quote(revision, safe='')}"
        async with web_client(self.silence_s, connect_s=self.connect_s) as client:
            answer, _ = await self._ask(client, url, token, _VERSION_BYTES)
        commit = answer.get("sha") if isinstance(answer, dict) else None
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit.lower()):
            raise ArtifactInvalid(mask_url(url), f"the version is {str(commit)[:80]!r}, want 40 hex digits")
        return commit.lower()

    async def files(self, repository: str, commit: str, *, most: int, token: str = "") -> tuple[HubFile, ...]:
        url = f"{self._api(repository)}/tree/{commit}?recursive=true&expand=true"
        found: list[HubFile] = []
        entries = 0
        async with web_client(self.silence_s, connect_s=self.connect_s) as client:
            for _ in range(_PAGES):
                page, link = await self._ask(client, url, token, _PAGE_BYTES)
                if not isinstance(page, list):
                    raise ArtifactInvalid(mask_url(url), "the list of files is no list")
                entries += len(page)
                if entries > most:
                    raise ArtifactInvalid(repository, f"it has more than {most} files and directories")
                found += [file for each in page if (file := _file(url, each)) is not None]
                following = self._next(url, link)
                if not following:
                    return tuple(found)
                url = following
        raise ArtifactInvalid(repository, f"its list of files has more than {_PAGES} pages")

    def _api(self, repository: str) -> str:
        return f"{self.endpoint}/api/models/{quote(repository)}"

    async def _ask(
        self, client: "httpx.AsyncClient", url: str, token: str, limit_bytes: int
    ) -> tuple[Any, str]:
        """The JSON at `url`, and its `Link` header."""
        shown = mask_url(url)
        content = bytearray()
        with web_errors(shown):
            async with client.stream("GET", url, headers=bearer(token)) as response:
                if response.status_code in _CLOSED:
                    raise DownloadRefused(shown, _closed(response.status_code, token))
                require_success(response, shown)
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > limit_bytes:
                        raise ArtifactInvalid(shown, f"the answer is larger than {limit_bytes} bytes")
                link = response.headers.get("link", "")
        try:
            return await to_thread.run_sync(json.loads, bytes(content)), link
        except (ValueError, RecursionError) as error:
            raise ArtifactInvalid(shown, "the answer is no JSON") from error

    def _next(self, url: str, link: str) -> str:
        """Where the next page is; "" after the last one."""
        found = _NEXT.search(link)
        if found is None:
            return ""
        following = str(urljoin(url, found[1]))
        if _origin(following) != _origin(self.endpoint):
            raise ArtifactInvalid(mask_url(url), f"its next page is elsewhere: {mask_url(following)[:200]}")
        return following


def _file(url: str, entry: object) -> HubFile | None:
    """An entry of a list of files; None for a directory."""
    if not isinstance(entry, dict):
        raise ArtifactInvalid(mask_url(url), "a file in the list is no object")
    if entry.get("type") != "file":
        return None
    path, size_bytes = entry.get("path"), entry.get("size")
    if not isinstance(path, str) or type(size_bytes) is not int:
        raise ArtifactInvalid(mask_url(url), "a file in the list has no path, or no size")
    lfs = entry.get("lfs")
    return HubFile(
        path=path,
        size_bytes=size_bytes,
        blob_id=_text(entry, "oid").lower(),
        lfs_sha256=_text(lfs, "oid").lower() if isinstance(lfs, dict) else "",
        xet_hash=_text(entry, "xetHash"),
    )


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


def _closed(status: int, token: str) -> str:
    if token:
        return f"the hub answered {status}: the token in HF_TOKEN does not open it"
    return (
        f"the hub answered {status}: there is no such repository, or it is private or gated; name its token "
        "in the model's configuration (source.token_env: HF_TOKEN) and set HF_TOKEN"
    )
