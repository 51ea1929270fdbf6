"""Images from a registry: what is understood, what is fetched, and what is not fetched again."""

import gzip
import os
import tempfile
from pathlib import Path

import anyio
import pytest
import zstandard

from localai_worker.adapters.artifacts.registry.images import RegistryImages
from localai_worker.domain.errors import ArtifactInvalid, ArtifactUnavailable
from localai_worker.domain.ports.artifacts import FetchPhase, FetchProgress
from tests import archives
from tests.archives import digest_of, entry, tar
from tests.registry import PART_BYTES, Image, OwnRegistry, Request, registry_images

MIB = 1 << 20


def layer(**files: bytes) -> bytes:
    return archives.tree_tar({name.replace("_", "."): content for name, content in files.items()})


def zipped(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


RUN = layer(run_sh=b"#!/bin/sh\n")
SMALL = Image([zipped(RUN)])


@pytest.mark.parametrize(
    "stored",
    [zipped(RUN), zstandard.compress(RUN), RUN, zipped(RUN[:100]) + zipped(RUN[100:])],
    ids=["gzip", "zstd", "plain", "several gzip members"],
)
async def test_layers_are_gzip_zstd_or_plain_whatever_their_type_says(
    own: OwnRegistry, tmp_path: Path, into: Path, stored: bytes
) -> None:
    """G-2.6.8."""
    await registry_images(tmp_path).fetch(own.pushed.push(Image([stored])), into)
    assert (into / "run.sh").read_bytes() == b"#!/bin/sh\n"


async def test_layers_apply_in_order_with_their_whiteouts(
    own: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    """G-2.6.9."""
    upper = tar([entry("run.sh", b"upper"), entry(".wh.old"), entry("d/.wh..wh..opq"), entry("d/new", b"")])
    lower = layer(run_sh=b"lower", old=b"1")
    middle = archives.tree_tar({"d/a": b"1", "d/b": b"2"})
    await registry_images(tmp_path).fetch(
        own.pushed.push(Image([*map(zipped, (lower, middle, upper))])), into
    )
    assert sorted(str(path.relative_to(into)) for path in into.rglob("*")) == ["d", "d/new", "run.sh"]
    assert (into / "run.sh").read_bytes() == b"upper"


async def test_a_layer_that_occurs_twice_is_fetched_once_and_applied_twice(
    own: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    """G-2.6.10, G-F11: nothing is read from the registry twice."""
    first, gone = zipped(layer(run_sh=b"1")), zipped(tar([entry(".wh.run.sh")]))
    fetched = await registry_images(tmp_path).fetch(own.pushed.push(Image([first, gone, first])), into)
    assert (into / "run.sh").exists()
    assert fetched.downloaded_bytes == len(first) + len(gone)


@pytest.mark.parametrize("nested", [0, 2])
async def test_of_an_index_the_digest_is_recorded_and_the_platforms_manifest_approved(
    own: OwnRegistry, tmp_path: Path, into: Path, nested: int
) -> None:
    """G-2.6.13, G-2.6.14, G-W3: what the tag names; a frontend that asks the registry sees the same."""
    approved: list[str] = []

    async def approve(digest: str) -> None:
        approved.append(digest)

    attestation = Image([b"{}"], media_type="application/vnd.in-toto+json")
    arm = Image([zipped(layer(run_sh=b"arm"))])
    built = {"unknown/unknown": attestation, "linux/arm64": arm, "linux/amd64": SMALL}
    uri = own.pushed.push_index(built, nested=nested)
    fetched = await registry_images(tmp_path).fetch(uri, into, approve=approve)
    index, _ = own.stored["team/backend", "manifests", "1"]
    assert (fetched.digest, approved) == (digest_of(index), [SMALL.digest])


async def test_a_child_without_a_platform_counts_as_linux_amd64(
    own: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    """G-2.6.2."""
    uri = own.pushed.push_index({"": SMALL})
    await registry_images(tmp_path).fetch(uri, into)
    with pytest.raises(ArtifactInvalid, match="no image for linux/arm64; it has linux/amd64"):
        await registry_images(tmp_path, platform="linux/arm64").fetch(uri, into)


async def test_a_directory_with_a_dot_in_its_name_is_a_directory(own: OwnRegistry, tmp_path: Path) -> None:
    """G-F8."""
    (tmp_path / "tool.v1.2").mkdir()
    await registry_images(tmp_path).fetch(own.pushed.push(SMALL), tmp_path / "tool.v1.2")
    assert (tmp_path / "tool.v1.2/run.sh").exists()


async def test_an_image_by_its_digest_needs_no_tag(own: OwnRegistry, tmp_path: Path, into: Path) -> None:
    own.pushed.push(SMALL, "moved")
    uri = f"oci://{own.host}/team/backend@{SMALL.digest}"
    assert (await registry_images(tmp_path).fetch(uri, into)).digest == SMALL.digest


async def test_a_second_backend_downloads_only_the_layers_it_does_not_share(
    own: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    """G-W20: layers are kept by their digest."""
    shared, one, two = (zipped(layer(**{name: os.urandom(1000)})) for name in ("shared", "one", "two"))
    images = registry_images(tmp_path)
    await images.fetch(own.pushed.push(Image([shared, one]), "one"), into)
    estimate = await images.describe(own.pushed.push(Image([shared, two]), "two"))
    fetched = await registry_images(tmp_path).fetch(own.pushed.uri("two"), into)
    assert estimate.download_bytes == fetched.downloaded_bytes == len(two)
    assert (into / "two").exists()


async def test_a_single_manifest_is_taken_whatever_its_platform(
    own: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    """G-2.6.2."""
    await registry_images(tmp_path, platform="linux/arm64").fetch(own.pushed.push(SMALL), into)
    assert (into / "run.sh").exists()


async def test_progress_counts_all_layers_as_one(own: OwnRegistry, tmp_path: Path, into: Path) -> None:
    """G-2.6.15: upstream begins at 0 with each of them."""
    layers = [zipped(layer(**{f"f{number}": os.urandom(300_000)})) for number in range(4)]
    own.bytes_per_s = MIB
    told: list[FetchProgress] = []
    images = registry_images(tmp_path, connections=2)
    await images.fetch(own.pushed.push(Image(layers)), into, report=told.append)
    total_bytes = sum(map(len, layers))
    done = [each.done_bytes for each in told]
    assert done == sorted(done)
    assert len(set(done)) >= 3
    assert {each.total_bytes for each in told[1:]} == {total_bytes}
    assert told[-1] == FetchProgress(FetchPhase.EXTRACTING, total_bytes, total_bytes)


async def test_a_large_layer_comes_in_ranges_over_several_connections(
    own: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    big = zipped(layer(big=os.urandom(5 * MIB + 12_345)))
    told: list[FetchProgress] = []
    fetched = await registry_images(tmp_path).fetch(own.pushed.push(Image([big])), into, report=told.append)
    ranges = sorted(headers["Range"] for _, headers in own.gets("/blobs/"))
    assert len(ranges) == -(-len(big) // PART_BYTES)
    assert fetched.downloaded_bytes == len(big)
    assert told[-1] == FetchProgress(FetchPhase.EXTRACTING, len(big), len(big))


async def test_a_registry_without_ranges_is_read_in_one_go(
    own: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    own.knows_ranges = False
    content = os.urandom(3 * MIB + 5)
    await registry_images(tmp_path).fetch(own.pushed.push(Image([zipped(layer(big=content))])), into)
    assert (into / "big").read_bytes() == content


async def test_two_fetches_of_one_image_share_the_download(own: OwnRegistry, tmp_path: Path) -> None:
    big = zipped(layer(big=os.urandom(6 * MIB)))
    uri = own.pushed.push(Image([big]))
    images = registry_images(tmp_path, connections=2)
    own.bytes_per_s = 20 * MIB
    places = [tmp_path / name for name in ("one", "two")]
    downloaded = []

    async def fetch(into: Path) -> None:
        into.mkdir()
        downloaded.append((await images.fetch(uri, into)).downloaded_bytes)

    async with anyio.create_task_group() as fetches:
        for place in places:
            fetches.start_soon(fetch, place)
    assert sum(downloaded) == len(big)
    assert (places[0] / "big").read_bytes() == (places[1] / "big").read_bytes()


async def test_a_cancelled_fetch_ends_at_once_and_the_next_goes_on_at_the_byte(
    own: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    """G-F10, G-W19: nothing that came in is fetched again, and nobody waits for a stalled connection."""
    big = zipped(layer(big=os.urandom(8 * MIB)))
    uri = own.pushed.push(Image([big]))

    def missing_of(images: RegistryImages) -> int:
        return images.fetcher.store.missing_bytes(digest_of(big), len(big))

    def stall(request: Request) -> bool:
        first, _, last = request.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if int(first or 0) < 4 * MIB:
            return False
        held_up.append(request.path)
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {first}-{last}/{len(big)}")
        request.send_header("Content-Length", str(int(last) - int(first) + 1))
        request.end_headers()
        request.wfile.flush()
        request.rfile.read(1)  # until the client hangs up
        request.close_connection = True
        return True

    held_up: list[str] = []
    own.faults.append(stall)
    cut = registry_images(tmp_path, stall_s=600)
    async with anyio.create_task_group() as fetching:

        async def fetch() -> None:
            await cut.fetch(uri, into)

        fetching.start_soon(fetch)
        with anyio.fail_after(30):
            while len(held_up) < 3 or missing_of(cut) > len(big) - 4 * MIB:
                await anyio.sleep(0.01)
        fetching.cancel_scope.cancel()
    own.faults.clear()
    images = registry_images(tmp_path)
    missing_bytes = missing_of(images)
    own.sent_bytes = 0
    again = tmp_path / "again"
    again.mkdir()
    fetched = await images.fetch(uri, again)
    assert missing_bytes == len(big) - 4 * MIB
    assert (
        fetched.downloaded_bytes
        == own.sent_bytes - len(own.stored["team/backend", "manifests", "1"][0])
        == missing_bytes
    )
    assert (again / "big").stat().st_size == 8 * MIB


async def test_a_connection_that_breaks_is_resumed_where_it_broke(
    own: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    """G-2.6.6, G-F10."""
    big = zipped(layer(big=os.urandom(400_000)))
    uri = own.pushed.push(Image([big]))

    def cut_once(request: Request) -> bool:
        if "/blobs/" not in request.path:
            return False
        own.faults.remove(cut_once)
        return request.send_cut(big, 150_000)

    own.faults.append(cut_once)
    fetched = await registry_images(tmp_path).fetch(uri, into)
    assert [headers.get("Range") for _, headers in own.gets("/blobs/")] == [
        None,
        f"bytes=150000-{len(big) - 1}",
    ]
    assert fetched.downloaded_bytes == len(big)


async def test_layers_go_to_no_temporary_directory(
    own: OwnRegistry, tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G-2.6.7: what comes in lies in the blob store, once, and is unpacked from there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "there is none"))
    layers = [zipped(layer(**{f"f{number}": os.urandom(MIB)})) for number in range(2)]
    await registry_images(tmp_path).fetch(own.pushed.push(Image([*layers, zipped(RUN)])), into)
    stored = {path.name: path.stat().st_size for path in (tmp_path / "blobs/sha256").iterdir()}
    assert stored == {digest_of(each)[7:]: len(each) for each in (*layers, zipped(RUN))}
    assert {path.name for path in tmp_path.iterdir()} == {"blobs", "into"}


async def test_a_blob_that_was_damaged_on_disk_is_fetched_anew(
    own: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    big = zipped(layer(big=os.urandom(3 * MIB)))
    uri = own.pushed.push(Image([big]))
    await registry_images(tmp_path).fetch(uri, into)
    damage(tmp_path / "blobs/sha256" / digest_of(big)[7:])
    fetched = await registry_images(tmp_path).fetch(uri, into)
    assert fetched.downloaded_bytes == len(big)
    assert (into / "big").exists()


async def test_a_partial_blob_that_was_damaged_is_fetched_anew(
    own: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    """After a power cut the record may promise bytes that never reached the disk."""
    big = zipped(layer(big=os.urandom(3 * MIB)))
    uri = own.pushed.push(Image([big]))

    def hang_up(request: Request) -> bool:
        request.close_connection = True
        return request.headers.get("Range", "").startswith("bytes=2")

    own.faults.append(hang_up)
    with pytest.raises(ArtifactUnavailable):
        await registry_images(tmp_path).fetch(uri, into)
    own.faults.clear()
    damage(tmp_path / "blobs/sha256" / f"{digest_of(big)[7:]}.partial")
    fetched = await registry_images(tmp_path).fetch(uri, into)
    assert fetched.downloaded_bytes == len(big)


def damage(blob: Path) -> None:
    content = bytearray(blob.read_bytes())
    content[1000] ^= 0xFF
    blob.write_bytes(content)


async def test_blobs_over_the_limit_go_oldest_first(own: OwnRegistry, tmp_path: Path, into: Path) -> None:
    images = registry_images(tmp_path)
    layers = [zipped(layer(**{f"f{number}": os.urandom(MIB)})) for number in range(3)]
    for number, content in enumerate(layers):
        await images.fetch(own.pushed.push(Image([content]), str(number)), into)
        os.utime(tmp_path / "blobs/sha256" / digest_of(content)[7:], (number, number))
    images.fetcher.store.limit_bytes = 2 * MIB + MIB // 2
    images.fetcher.store.trim()
    kept = {path.name for path in (tmp_path / "blobs/sha256").iterdir()}
    assert kept == {digest_of(content)[7:] for content in layers[1:]}


async def test_nothing_is_kept_with_a_limit_of_nothing(own: OwnRegistry, tmp_path: Path, into: Path) -> None:
    images = registry_images(tmp_path)
    images.fetcher.store.limit_bytes = 0
    await images.fetch(own.pushed.push(SMALL), into)
    assert list((tmp_path / "blobs/sha256").iterdir()) == []
