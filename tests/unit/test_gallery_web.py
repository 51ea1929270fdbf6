"""Gallery documents over HTTP, from a real server."""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest

from localai_worker.adapters.galleries.http import HttpDocuments
from localai_worker.domain.errors import ArtifactInvalid, ArtifactUnavailable
from tests.web import Page, Web, web_server

ROOT = Path("/srv/backends")


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


async def fetch(
    url: str, *, known: str = "", documents: HttpDocuments | None = None
) -> tuple[bytes, str] | None:
    document = await (documents or HttpDocuments()).fetch(url, trusted_root=ROOT, known=known)
    return None if document is None else (document.content, document.version)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_an_error_page_is_no_index(web: Web, status: int) -> None:
    """G-1.3.6, G-1.3.7, G-F13: the seed takes the body of any status for an index."""
    web.pages["/index.yaml"] = Page(b"- name: page", status=status)
    with pytest.raises(ArtifactUnavailable) as caught:
        await fetch(web.url("/index.yaml"))
    assert f'failed to read url "{web.url("/index.yaml")}", invalid status code {status}' in str(caught.value)


async def test_who_asks_is_told_like_localai(web: Web) -> None:
    """G-1.3.7."""
    web.pages["/index.yaml"] = Page(b"[]")
    await fetch(web.url("/index.yaml"))
    assert web.visits[0].headers["user-agent"].startswith("LocalAI-worker/")


async def test_a_redirect_is_followed_and_credentials_stay_at_home(web: Web) -> None:
    """G-1.3.7."""
    with web_server() as elsewhere:
        web.pages["/index.yaml"] = Page(
            status=302, headers={"Location": elsewhere.url("/moved", "localhost")}
        )
        elsewhere.pages["/moved"] = Page(b"[moved]")
        found = await fetch(web.url("/index.yaml", login="me:secret@"))
        assert found is not None
        assert found[0] == b"[moved]"
        assert "authorization" in web.visits[0].headers
        assert "authorization" not in elsewhere.visits[0].headers


async def test_a_redirect_without_end_is_given_up(web: Web) -> None:
    """G-1.3.7."""
    web.pages["/index.yaml"] = Page(status=302, headers={"Location": web.url("/index.yaml")})
    with pytest.raises(ArtifactUnavailable, match="redirect"):
        await fetch(web.url("/index.yaml"))
    assert len(web.visits) == 11


async def test_the_version_is_the_tag_or_the_date(web: Web) -> None:
    web.pages["/tag"] = Page(b"[]", tag='W/"7"')
    web.pages["/date"] = Page(b"[]", headers={"Last-Modified": "Mon, 20 Apr 2026 08:15:30 GMT"})
    web.pages["/none"] = Page(b"[]")
    assert await fetch(web.url("/tag")) == (b"[]", 'tag:W/"7"')
    assert await fetch(web.url("/date")) == (b"[]", "date:Mon, 20 Apr 2026 08:15:30 GMT")
    assert await fetch(web.url("/none")) == (b"[]", "")
    assert await fetch(web.url("/tag"), known='tag:W/"7"') is None
    await fetch(web.url("/date"), known="date:Mon, 20 Apr 2026 08:15:30 GMT")
    assert web.visits[-1].headers["if-modified-since"] == "Mon, 20 Apr 2026 08:15:30 GMT"


async def test_an_endless_document_is_cut_at_the_limit(web: Web) -> None:
    """G-W19."""
    web.pages["/endless"] = Page(chunks=repeat(b"- name: x\n" * 1000))
    with pytest.raises(ArtifactInvalid, match="larger than 100000 bytes"):
        await fetch(web.url("/endless"), documents=HttpDocuments(limit_bytes=100_000))


async def test_a_silent_server_is_given_up(web: Web) -> None:
    """G-W19."""
    web.pages["/silent"] = Page(stall=True)
    with pytest.raises(ArtifactUnavailable, match=r"silent for 0\.2 s"):
        await fetch(web.url("/silent"), documents=HttpDocuments(silence_s=0.2))


async def test_a_connection_that_breaks_off_is_no_shorter_index(web: Web) -> None:
    web.pages["/cut"] = Page(b"- name: x\n", headers={"Content-Length": "1000"})
    with pytest.raises(ArtifactUnavailable):
        await fetch(web.url("/cut"))


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1", "http://127.0.0.1:1/x", "http://a b/x", "http://h:x/"]
)
async def test_what_cannot_be_reached_is_unavailable(url: str) -> None:
    with pytest.raises(ArtifactUnavailable):
        await fetch(url)


async def test_passwords_are_not_told(web: Web) -> None:
    with pytest.raises(ArtifactUnavailable) as caught:
        await fetch(web.url("/missing", login="me:secret@"))
    assert "secret" not in str(caught.value)
