"""Every `ModelHub` keeps these promises: the one in memory and the one over HTTP."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from localai_worker.adapters.downloads.hub import HttpModelHub
from localai_worker.adapters.memory.downloads import InMemoryDownloads
from localai_worker.adapters.memory.model_hub import InMemoryModelHub
from localai_worker.domain.errors import (
    ArtifactInvalid,
    ArtifactMissing,
    ArtifactUnavailable,
    DownloadRefused,
)
from localai_worker.domain.ports.model_hub import ModelHub
from tests.snapshots import HubOnWeb
from tests.web import Page, Web, web_server

FILES = {"config.json": b"{}", "unet/weights.bin": b"w" * 1000, "with space#.txt": b""}
CONFIG_BLOB = "9e26dfeeb6e641a33dae4961196235bdb965b21b"  # git hash-object


@dataclass
class Stage:
    """A hub, and ways to put repositories on it."""

    hub: ModelHub
    publish: Callable[..., str]
    unreachable: ModelHub


@pytest.fixture(params=["memory", "http"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with ExitStack() as stack:
        if request.param == "memory":
            memory = InMemoryModelHub(InMemoryDownloads())

            def publish(
                repository: str,
                files: Mapping[str, bytes],
                *,
                token: str = "",
                revision: str = "main",
                large: Collection[str] = (),
                page_size: int = 0,
            ) -> str:
                del page_size
                if token:
                    memory.closed[repository] = token
                return memory.publish(repository, files, revision=revision, large=large)

            yield Stage(memory, publish, InMemoryModelHub(InMemoryDownloads(), offline=True))
            return
        web = stack.enter_context(web_server())
        site = HubOnWeb(web, stack.enter_context(web_server()))
        yield Stage(HttpModelHub(site.endpoint), site.publish, HttpModelHub("http://127.0.0.1:1"))


async def test_a_revision_stands_for_a_version(stage: Stage) -> None:
    first = stage.publish("owner/repo", {"a": b"1"})
    second = stage.publish("owner/repo", {"a": b"2"}, revision="refs/pr/1")
    assert await stage.hub.commit("owner/repo", "main") == first
    assert await stage.hub.commit("owner/repo", "refs/pr/1") == second
    assert first != second


@pytest.mark.parametrize("page_size", [1, 2, 1000])
async def test_all_files_are_told_over_any_number_of_pages(stage: Stage, page_size: int) -> None:
    """M-5.2."""
    commit = stage.publish("owner/repo", FILES, large=["unet/weights.bin"], page_size=page_size)
    files = await stage.hub.files("owner/repo", commit, most=100)
    assert [(each.path, each.size_bytes) for each in files] == [
        (path, len(content)) for path, content in FILES.items()
    ]
    assert files[0].blob_id == CONFIG_BLOB
    assert [bool(each.lfs_sha256) for each in files] == [False, True, False]


async def test_a_list_that_is_too_long_is_refused(stage: Stage) -> None:
    """M-5.2."""
    commit = stage.publish("owner/repo", {str(number): b"" for number in range(20)}, page_size=5)
    with pytest.raises(ArtifactInvalid, match="more than 10 files"):
        await stage.hub.files("owner/repo", commit, most=10)


async def test_what_is_not_there_is_missing(stage: Stage) -> None:
    stage.publish("owner/repo", FILES)
    for repository, revision in (("owner/other", "main"), ("owner/repo", "v9")):
        with pytest.raises(ArtifactMissing):
            await stage.hub.commit(repository, revision)
    with pytest.raises(ArtifactMissing):
        await stage.hub.files("owner/repo", "0" * 40, most=10)


async def test_a_token_opens_what_is_closed_without_it(stage: Stage) -> None:
    """M-5.2."""
    commit = stage.publish("owner/repo", FILES, token="hf_secret")
    assert await stage.hub.commit("owner/repo", "main", token="hf_secret") == commit
    assert len(await stage.hub.files("owner/repo", commit, most=100, token="hf_secret")) == 3
    for token in ("", "hf_wrong"):
        with pytest.raises(DownloadRefused, match="HF_TOKEN") as caught:
            await stage.hub.commit("owner/repo", "main", token=token)
        assert "hf_wrong" not in str(caught.value)


async def test_a_hub_that_cannot_be_reached_is_unavailable(stage: Stage) -> None:
    with pytest.raises(ArtifactUnavailable):
        await stage.unreachable.commit("owner/repo", "main")
    with pytest.raises(ArtifactUnavailable):
        await stage.unreachable.files("owner/repo", "0" * 40, most=10)


# What only a web server can do wrong.

VERSION = "/api/models/o/r/revision/main"
TREE = f"/api/models/o/r/tree/{'0' * 40}?recursive=true&expand=true"


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"sha": 7}',
        b'{"sha": "main"}',
        b'{"sha": "%s"}' % (b"g" * 40),
        b"[" * 10_000,
    ],
)
async def test_an_answer_without_a_version_is_invalid(web: Web, body: bytes) -> None:
    web.pages[VERSION] = Page(body)
    with pytest.raises(ArtifactInvalid):
        await HttpModelHub(web.url("")).commit("o/r", "main")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[7]",
        b'[{"type":"file"}]',
        b'[{"type":"file","path":"a","size":"1"}]',
        b'[{"type":"file","path":"a","size":true}]',
    ],
)
async def test_a_list_of_nonsense_is_invalid(web: Web, body: bytes) -> None:
    web.pages[TREE] = Page(body)
    with pytest.raises(ArtifactInvalid):
        await HttpModelHub(web.url("")).files("o/r", "0" * 40, most=10)


async def test_a_page_elsewhere_is_not_asked_for(web: Web) -> None:
    """M-5.2: nor is the token shown there."""
    with web_server() as elsewhere:
        web.pages[TREE] = Page(b"[]", headers={"Link": f'<{elsewhere.url("/more")}>; rel="next"'})
        with pytest.raises(ArtifactInvalid, match="its next page is elsewhere"):
            await HttpModelHub(web.url("")).files("o/r", "0" * 40, most=10, token="hf_secret")
        assert elsewhere.visits == []


async def test_pages_without_end_have_one(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """M-5.2: also where no file comes with them."""
    monkeypatch.setattr("localai_worker.adapters.downloads.hub._PAGES", 5)
    web.pages[TREE] = Page(b"[]", headers={"Link": f'<{web.url(TREE)}>; rel="next"'})
    with pytest.raises(ArtifactInvalid, match="more than 5 pages"):
        await HttpModelHub(web.url("")).files("o/r", "0" * 40, most=10)
    assert len(web.visits) == 5


@pytest.mark.parametrize(
    ("link", "pages"),
    [
        ('<{url}>; rel="next"', 2),
        ('<{path}>; rel="next"', 2),
        ("<{url}>; rel=next", 2),
        ('<{url}>; title="x"; rel="next"; type="y"', 2),
        ('</first>; rel="first", <{url}>; rel="next"', 2),
        ('<{url}>; rel="prev"', 1),
        ("nonsense", 1),
        ("", 1),
    ],
)
async def test_where_the_next_page_is_told(web: Web, link: str, pages: int) -> None:
    path = f"{TREE}&cursor=2"
    header = link.format(url=web.url(path), path=path)
    web.pages[TREE] = Page(b"[]", headers={"Link": header})
    web.pages[path] = Page(json.dumps([]).encode())
    await HttpModelHub(web.url("")).files("o/r", "0" * 40, most=10)
    assert len(web.visits) == pages


async def test_an_answer_without_end_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localai_worker.adapters.downloads.hub._VERSION_BYTES", 10_000)
    web.pages[VERSION] = Page(chunks=iter(lambda: b" " * 1000, b""))
    with pytest.raises(ArtifactInvalid, match="larger than 10000 bytes"):
        await HttpModelHub(web.url("")).commit("o/r", "main")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, ArtifactMissing),
        (403, DownloadRefused),
        (400, DownloadRefused),
        (429, ArtifactUnavailable),
        (502, ArtifactUnavailable),
    ],
)
async def test_what_a_status_means(web: Web, status: int, kind: type[Exception]) -> None:
    web.pages[VERSION] = Page(status=status)
    with pytest.raises(ArtifactUnavailable) as caught:
        await HttpModelHub(web.url("")).commit("o/r", "main")
    assert type(caught.value) is kind
