"""Archives and programs by URL and by path."""

import bz2
import gzip
import lzma
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from localai_worker.adapters.artifacts.file_payloads import FilePayloads
from localai_worker.adapters.artifacts.tree_limits import TreeLimits
from localai_worker.adapters.artifacts.url_payloads import UrlPayloads
from localai_worker.adapters.artifacts.web.client import WebClient
from localai_worker.domain.errors import ArtifactInvalid, ArtifactMissing, ArtifactUnavailable, WorkerError
from localai_worker.domain.ports.artifacts import FetchedArtifact
from tests import archives
from tests.archives import digest_of, directory, entry, symlink, tar
from tests.registry import OwnRegistry, Request, blob_fetcher, own_registry

TAR = archives.tree_tar({"run.sh": b"#!/bin/sh\n", "lib/x": b"1"})
ELF = b"\x7fELF" + os.urandom(5000)
BIG = gzip.compress(archives.tree_tar({"run.sh": b"#!/bin/sh\n", "big": os.urandom(4 << 20)}), 1, mtime=0)


@pytest.fixture
def server() -> Iterator[OwnRegistry]:
    with own_registry() as own:
        yield own


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def payloads(top: Path, connections: int = 8, **options: Any) -> UrlPayloads:
    return UrlPayloads(WebClient(), blob_fetcher(top, connections=connections), **options)


async def fetch(server: OwnRegistry, top: Path, content: bytes, **options: str) -> FetchedArtifact:
    server.files["/p"] = content
    return await payloads(top).fetch(f"http://{server.host}/p", top / "into", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [TAR, gzip.compress(TAR), zstandard.compress(TAR), lzma.compress(TAR), bz2.compress(TAR)],
    ids=["plain", "gzip", "zstd", "xz", "bzip2"],
)
async def test_an_archive_is_unpacked_however_it_is_compressed(
    server: OwnRegistry, tmp_path: Path, into: Path, content: bytes
) -> None:
    """G-2.5.2, G-2.5.6, G-W4: archives by URL work."""
    fetched = await fetch(server, tmp_path, content, sha256=digest_of(content)[7:])
    assert fetched.digest == digest_of(content)
    assert sorted(str(path.relative_to(into)) for path in into.rglob("*")) == ["lib", "lib/x", "run.sh"]


@pytest.mark.parametrize("content", [ELF, gzip.compress(ELF), b"#!/bin/sh\nexec true\n"])
async def test_a_program_becomes_the_run_file(
    server: OwnRegistry, tmp_path: Path, into: Path, content: bytes
) -> None:
    """G-W4."""
    await fetch(server, tmp_path, content)
    assert [path.name for path in into.iterdir()] == ["run.sh"]
    assert (into / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (into / "run.sh").read_bytes() == (ELF if content.startswith((b"\x1f", b"\x7f")) else content)


async def test_the_only_directory_of_an_archive_becomes_the_tree(
    server: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    content = tar([directory("tool-1.2"), entry("tool-1.2/run.sh", b"x"), entry("tool-1.2/tool-1.2", b"y")])
    await fetch(server, tmp_path, content)
    assert sorted(path.name for path in into.iterdir()) == ["run.sh", "tool-1.2"]


async def test_a_link_is_not_taken_for_the_only_directory(
    server: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/run.sh").touch()
    await fetch(server, tmp_path, tar([symlink("link", str(tmp_path / "outside"))]))
    assert (into / "link").is_symlink()
    assert (tmp_path / "outside/run.sh").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04" + bytes(100), "a zip archive; tar archives and programs are taken"),
        (b"<html>sign in</html>" * 50, "no readable tar archive"),
        (b"", "it is empty"),
        (gzip.compress(TAR)[:-10], "broken gzip: it ends too early"),
        (lzma.compress(TAR)[:-10], "broken xz"),
        (bz2.compress(TAR)[:-10], "broken bzip2"),
        (tar([entry("../out", b"1")]), "leaves the artifact"),
    ],
)
async def test_what_is_neither_is_refused(
    server: OwnRegistry, tmp_path: Path, into: Path, content: bytes, reason: str
) -> None:
    with pytest.raises(ArtifactInvalid, match=reason):
        await fetch(server, tmp_path, content)
    assert not (tmp_path / "out").exists()


async def test_a_wrong_hash_is_refused(server: OwnRegistry, tmp_path: Path, into: Path) -> None:
    """G-F23: before anything is in place."""
    with pytest.raises(ArtifactInvalid, match=f"is {digest_of(TAR)}, should be sha256:{'0' * 64}"):
        await fetch(server, tmp_path, TAR, sha256="0" * 64)


async def test_a_hash_that_is_none_is_the_gallerys_fault(
    server: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    with pytest.raises(ArtifactInvalid, match="its gallery gives 'abc' as SHA-256"):
        await fetch(server, tmp_path, TAR, sha256="abc")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, ArtifactMissing),
        (410, ArtifactMissing),
        (403, ArtifactUnavailable),
        (500, ArtifactUnavailable),
    ],
)
async def test_answers_that_are_no_payload(
    server: OwnRegistry, tmp_path: Path, into: Path, status: int, error: type[WorkerError]
) -> None:
    def refuse(request: Request) -> bool:
        request.answer(status, b"")
        return True

    server.faults.append(refuse)
    with pytest.raises(error, match=str(status)) as caught:
        await fetch(server, tmp_path, TAR)
    assert type(caught.value) is error


async def test_a_large_one_comes_in_ranges_and_is_kept(
    server: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    """G-2.5.7."""
    first = await fetch(server, tmp_path, BIG)
    (into / "big").unlink()
    again = await fetch(server, tmp_path, BIG)
    assert (first.downloaded_bytes, again.downloaded_bytes) == (len(BIG), 0)
    assert len({headers["Range"] for _, headers in server.gets("/p")}) == 6  # five parts, and the question


async def test_a_new_version_under_the_same_url_is_downloaded(
    server: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    await fetch(server, tmp_path, BIG)
    other = gzip.compress(archives.tree_tar({"run.sh": os.urandom(len(BIG))}), 1, mtime=0)[: len(BIG)]
    other += bytes(len(BIG) - len(other))
    assert (await payloads(tmp_path).describe(f"http://{server.host}/p")).download_bytes == 0
    server.files["/p"] = other
    assert (await payloads(tmp_path).describe(f"http://{server.host}/p")).download_bytes == len(BIG)


async def test_a_payload_that_changes_while_it_comes_in_is_not_mixed(
    server: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    def change(request: Request) -> bool:
        if len(server.gets("/p")) == 3:
            server.files["/p"] = BIG[::-1]
        return False

    server.faults.append(change)
    with pytest.raises(ArtifactUnavailable, match="it changed while it was fetched"):
        await fetch(server, tmp_path, BIG)


def refuse_the_end(request: Request) -> bool:
    """What lies beyond two MiB is not to be had."""
    first = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
    if first >= 2 << 20:
        request.answer(403, b"")
    return first >= 2 << 20


async def test_an_interrupted_one_goes_on_where_it_ended(
    server: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    """G-2.5.7: also without a hash, as long as the server says that it is the same one."""
    server.files["/p"] = BIG
    server.faults.append(refuse_the_end)
    with pytest.raises(ArtifactUnavailable, match="403"):
        await payloads(tmp_path, connections=1).fetch(f"http://{server.host}/p", into)
    server.faults.clear()
    left_bytes = (await payloads(tmp_path).describe(f"http://{server.host}/p")).download_bytes
    assert left_bytes == len(BIG) - (2 << 20)
    again = await fetch(server, tmp_path, BIG)
    assert again.downloaded_bytes == left_bytes
    assert (into / "big").stat().st_size == 4 << 20


async def test_a_broken_one_that_came_in_two_pieces_is_refused(
    server: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    """Without a hash nobody knows which piece is to blame: it is fetched once more, and then told."""
    server.files["/p"] = BIG[:-10]
    server.faults.append(refuse_the_end)
    with pytest.raises(ArtifactUnavailable, match="403"):
        await payloads(tmp_path, connections=1).fetch(f"http://{server.host}/p", into)
    server.faults.clear()
    asked = len(server.gets("/p"))
    with pytest.raises(ArtifactInvalid, match="broken gzip: it ends too early"):
        await fetch(server, tmp_path, BIG[:-10])
    assert len(server.gets("/p")) > asked + 5


async def test_a_server_that_tells_no_size_is_read_in_one_go(
    server: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    server.tells_sizes = server.knows_ranges = False
    fetched = await fetch(server, tmp_path, BIG)
    assert (into / "big").stat().st_size == 4 << 20
    assert fetched.downloaded_bytes == len(BIG)
    assert not (tmp_path / "blobs").exists()


async def test_an_answer_without_end_is_stopped(server: OwnRegistry, tmp_path: Path, into: Path) -> None:
    server.tells_sizes = server.knows_ranges = False
    server.files["/p"] = b"#!" + bytes(5 << 20)
    with pytest.raises(ArtifactInvalid, match="LOCALAI_WORKER_BACKEND_SIZE_LIMIT"):
        await payloads(tmp_path, limits=TreeLimits(1 << 20)).fetch(f"http://{server.host}/p", into)


@pytest.mark.parametrize("scheme", ["file://", ""])
async def test_a_file_on_this_node_is_taken_like_a_download(tmp_path: Path, into: Path, scheme: str) -> None:
    (tmp_path / "x.tgz").write_bytes(gzip.compress(TAR))
    await FilePayloads().fetch(f"{scheme}{tmp_path}/x.tgz", into)
    assert (into / "run.sh").exists()


async def test_a_directory_on_this_node_is_copied(tmp_path: Path, into: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/run.sh").touch()
    await FilePayloads().fetch(f"file://{tmp_path}/tree", into)
    assert (into / "run.sh").exists()


@pytest.mark.parametrize("uri", ["file://relative", "/nowhere/at/all", "/dev/null", "/a\0b"])
async def test_a_path_that_is_nothing_to_install(into: Path, uri: str) -> None:
    with pytest.raises(ArtifactUnavailable):
        await FilePayloads().fetch(uri, into)
