"""Every `Downloads` and `HostNames` keeps these promises: the ones in memory and the real ones."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from localai_worker.adapters.downloads.http import HttpDownloads
from localai_worker.adapters.memory.downloads import InMemoryDownloads
from localai_worker.adapters.memory.machine import InMemoryMachine
from localai_worker.adapters.memory.network import InMemoryNetwork
from localai_worker.adapters.network.local import LocalNetwork
from localai_worker.domain.errors import (
    ArtifactMissing,
    ArtifactUnavailable,
    DownloadRefused,
    UnsupportedSource,
)
from localai_worker.domain.ports.downloads import Downloads, HostNames
from tests.web import Page, web_server

CONTENT = bytes(range(256)) * 1000


@dataclass
class Stage:
    """Downloads, a url with CONTENT, and ways to make its server difficult."""

    downloads: Downloads
    url: str
    missing: str
    withhold_parts: Callable[[], None]
    withhold_size: Callable[[], None]
    refuse: Callable[[], None]
    break_at: Callable[[int], None]
    close: Callable[[str], None]
    unreachable: str


@pytest.fixture(params=["memory", "http"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with ExitStack() as stack:
        if request.param == "memory":
            url = "https://h/model.gguf"
            memory = InMemoryDownloads({url: CONTENT})
            yield Stage(
                memory,
                url,
                "https://h/other.gguf",
                lambda: setattr(memory, "gives_parts", False),
                lambda: setattr(memory, "tells_size", False),
                lambda: memory.refused.add(url),
                lambda at: memory.breaks.update({url: at}),
                lambda token: memory.closed.update({url: token}),
                "https://nowhere/model.gguf",
            )
            return
        web = stack.enter_context(web_server())
        web.pages["/model.gguf"] = Page(CONTENT)

        def put(**fields: object) -> None:
            web.pages["/model.gguf"] = Page(**{"body": CONTENT, **fields})  # type: ignore[arg-type]

        yield Stage(
            HttpDownloads(),
            web.url("/model.gguf"),
            web.url("/other.gguf"),
            lambda: put(gives_parts=False),
            lambda: put(chunks=iter([CONTENT])),
            lambda: put(status=403),
            lambda at: put(body=CONTENT[:at], headers={"Content-Length": str(len(CONTENT))}),
            lambda token: put(token=token),
            "http://127.0.0.1:1/model.gguf",
        )


async def received(
    downloads: Downloads, url: str, start: int = 0, token: str = ""
) -> tuple[int, int | None, bytes]:
    async with downloads.open(url, start=start, token=token) as download:
        content = b"".join([chunk async for chunk in download.chunks()])
        return download.starts_at, download.total_bytes, content


async def test_a_file_comes_whole_with_its_size(stage: Stage) -> None:
    assert await received(stage.downloads, stage.url) == (0, len(CONTENT), CONTENT)


async def test_a_file_comes_from_the_byte_that_was_asked_for(stage: Stage) -> None:
    assert await received(stage.downloads, stage.url, 1000) == (1000, len(CONTENT), CONTENT[1000:])


async def test_a_server_that_gives_no_parts_gives_all(stage: Stage) -> None:
    stage.withhold_parts()
    assert await received(stage.downloads, stage.url, 1000) == (0, len(CONTENT), CONTENT)


async def test_a_size_that_is_not_told_is_unknown(stage: Stage) -> None:
    stage.withhold_size()
    assert await received(stage.downloads, stage.url) == (0, None, CONTENT)


async def test_a_file_that_is_not_there_is_missing(stage: Stage) -> None:
    with pytest.raises(ArtifactMissing):
        await received(stage.downloads, stage.missing)


async def test_a_server_that_says_no_is_not_asked_again(stage: Stage) -> None:
    stage.refuse()
    with pytest.raises(DownloadRefused):
        await received(stage.downloads, stage.url)


async def test_a_token_opens_what_is_closed_without_it(stage: Stage) -> None:
    stage.close("hf_secret")
    assert await received(stage.downloads, stage.url, token="hf_secret") == (0, len(CONTENT), CONTENT)
    for token in ("", "hf_wrong"):
        with pytest.raises(DownloadRefused):
            await received(stage.downloads, stage.url, token=token)


async def test_a_connection_that_breaks_is_told_after_what_came(stage: Stage) -> None:
    stage.break_at(5000)
    came = b""
    with pytest.raises(ArtifactUnavailable):  # noqa: PT012 - what came before counts
        async with stage.downloads.open(stage.url) as download:
            async for chunk in download.chunks():
                came += chunk
    assert came == CONTENT[:5000]


async def test_a_part_behind_the_end_is_unavailable(stage: Stage) -> None:
    with pytest.raises(ArtifactUnavailable):
        await received(stage.downloads, stage.url, len(CONTENT) + 10)


async def test_what_cannot_be_reached_is_unavailable(stage: Stage) -> None:
    with pytest.raises(ArtifactUnavailable):
        await received(stage.downloads, stage.unreachable)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/x", "", "/x"])
async def test_another_kind_of_url_is_refused(stage: Stage, url: str) -> None:
    with pytest.raises(UnsupportedSource):
        await received(stage.downloads, url)
    assert await stage.downloads.size(url) is None


async def test_the_size_alone_can_be_asked_for(stage: Stage) -> None:
    assert await stage.downloads.size(stage.url) == len(CONTENT)
    assert await stage.downloads.size(stage.missing) is None
    assert await stage.downloads.size(stage.unreachable) is None


@pytest.fixture(params=["memory", "local"])
def names(request: pytest.FixtureRequest) -> HostNames:
    if request.param == "local":
        return LocalNetwork()
    return InMemoryNetwork(InMemoryMachine(), names={"localhost": ("127.0.0.1",)})


async def test_a_host_has_its_addresses(names: HostNames) -> None:
    assert set(await names.resolve("localhost")) & {"127.0.0.1", "::1"}


@pytest.mark.parametrize("host", ["no-such-host.invalid", "", "a" * 300])
async def test_a_host_nobody_knows_has_none(names: HostNames, host: str) -> None:
    if host:
        assert await names.resolve(host) == ()


async def test_a_redirect_is_followed_and_credentials_stay_at_home() -> None:
    """M-4.2.9: nor does any token of Hugging Face go anywhere."""
    with web_server() as home, web_server() as elsewhere:
        home.pages["/x"] = Page(status=302, headers={"Location": elsewhere.url("/moved", "localhost")})
        elsewhere.pages["/moved"] = Page(CONTENT)
        got = await received(HttpDownloads(), home.url("/x", login="me:secret@"))
        assert got == (0, len(CONTENT), CONTENT)
        assert home.visits[0].headers["user-agent"].startswith("LocalAI-worker/")
        assert "authorization" in home.visits[0].headers
        assert "authorization" not in elsewhere.visits[0].headers


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, ArtifactMissing),
        (410, ArtifactMissing),
        (401, DownloadRefused),
        (451, DownloadRefused),
        (408, ArtifactUnavailable),
        (429, ArtifactUnavailable),
        (500, ArtifactUnavailable),
        (503, ArtifactUnavailable),
    ],
)
async def test_what_is_worth_another_attempt(status: int, kind: type[Exception]) -> None:
    """M-4.2.6: trouble of the moment is, a definite no is not."""
    with web_server() as web:
        web.pages["/x"] = Page(status=status)
        with pytest.raises(ArtifactUnavailable) as caught:
            await received(HttpDownloads(), web.url("/x"))
    assert type(caught.value) is kind
    assert f"invalid status code {status}" in str(caught.value)


async def test_a_server_that_says_nothing_is_given_up() -> None:
    """M-4.2.6."""
    with web_server() as web:
        web.pages["/x"] = Page(stall=True)
        with pytest.raises(ArtifactUnavailable, match="silent for too long"):
            await received(HttpDownloads(silence_s=0.05), web.url("/x"))


async def test_redirects_without_end_are_given_up() -> None:
    """M-4.2.9: after ten."""
    with web_server() as web:
        web.pages["/x"] = Page(status=302, headers={"Location": web.url("/x")})
        with pytest.raises(ArtifactUnavailable):
            await received(HttpDownloads(), web.url("/x"))
        assert len(web.visits) == 11


async def test_files_that_come_together_are_the_same(stage: Stage) -> None:
    async with stage.downloads.together() as downloads:
        for start in (0, 1000):
            assert await received(downloads, stage.url, start) == (start, len(CONTENT), CONTENT[start:])
        with pytest.raises(ArtifactMissing):
            await received(downloads, stage.missing)
        assert await received(downloads, stage.url) == (0, len(CONTENT), CONTENT)


async def test_files_that_come_together_need_one_connection() -> None:
    with web_server() as web:
        web.pages["/x"] = Page(CONTENT)
        async with HttpDownloads().together() as downloads:
            for _ in range(3):
                await received(downloads, web.url("/x"))
        assert len({visit.peer for visit in web.visits}) == 1


async def test_a_token_goes_nowhere_else() -> None:
    """M-5.2: not where the hub sends us for large files."""
    with web_server() as hub, web_server() as store:
        hub.pages["/x"] = Page(status=302, headers={"Location": store.url("/y", "localhost")})
        store.pages["/y"] = Page(CONTENT)
        got = await received(HttpDownloads(), hub.url("/x"), 1000, token="hf_secret")
        assert got == (1000, len(CONTENT), CONTENT[1000:])
        assert hub.visits[0].headers["authorization"] == "Bearer hf_secret"
        assert "authorization" not in store.visits[0].headers
        assert store.visits[0].headers["range"] == "bytes=1000-"


async def test_passwords_in_urls_are_not_told() -> None:
    with web_server() as web, pytest.raises(ArtifactMissing) as caught:
        await received(HttpDownloads(), web.url("/missing", login="me:secret@"))
    assert "secret" not in str(caught.value)
