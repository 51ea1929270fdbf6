"""Registries that answer badly: an error that names the source and the reason, or it is waited out."""

import gzip
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from localai_worker.adapters.artifacts.tree_limits import TreeLimits
from localai_worker.domain.errors import (
    ArtifactInvalid,
    ArtifactMissing,
    ArtifactUnavailable,
    FileUnwritable,
    NoSpace,
    WorkerError,
)
from tests import archives
from tests.archives import digest_of, to_json
from tests.registry import Image, OwnRegistry, Request, registry_images

LAYER = gzip.compress(archives.tree_tar({"run.sh": b"#!/bin/sh\n", "data": os.urandom(50_000)}), mtime=0)
IMAGE = Image([LAYER])
ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress(gzip.decompress(LAYER))


def on(part: str, answer: Callable[[Request], None]) -> Callable[[Request], bool]:
    """A fault that answers every GET whose path has `part`."""

    def fault(request: Request) -> bool:
        if part not in request.path or request.command != "GET":
            return False
        answer(request)
        return True

    return fault


def says(status: int, content: bytes = b"", **headers: str) -> Callable[[Request], None]:
    return lambda request: request.answer(
        status, content, {k.replace("_", "-"): v for k, v in headers.items()}
    )


def hangs_up(request: Request) -> None:
    request.close_connection = True


def cuts(request: Request) -> None:
    request.send_cut(LAYER, 0)


ERROR = to_json({"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]})
OTHER_MANIFEST = Image([b"other"]).manifest

ANSWERS: dict[str, tuple[str, Callable[[Request], None], type[WorkerError], str]] = {
    "manifest 401 without a challenge": (
        "manifests",
        says(401),
        ArtifactUnavailable,
        "does not say what it wants",
    ),
    "manifest 403": (
        "manifests",
        says(403, ERROR),
        ArtifactUnavailable,
        "answers 403 (DENIED: requested access",
    ),
    "manifest 404": ("manifests", says(404), ArtifactMissing, "has no team/backend:1"),
    "manifest 400": ("manifests", says(400), ArtifactUnavailable, "answers 400"),
    "manifest 500": ("manifests", says(500), ArtifactUnavailable, "answers 500"),
    "manifest 503": ("manifests", says(503), ArtifactUnavailable, "answers 503"),
    "manifest 429 for an hour": (
        "manifests",
        says(429, Retry_After="3600"),
        ArtifactUnavailable,
        "answers 429; it wants to be left alone for 3600 s",
    ),
    "manifest connection hung up": (
        "manifests",
        hangs_up,
        ArtifactUnavailable,
        "/v2/team/backend/manifests/1",
    ),
    "manifest of another digest": (
        "manifests",
        says(200, OTHER_MANIFEST, Docker_Content_Digest=f"sha256:{'0' * 64}"),
        ArtifactInvalid,
        f"should be sha256:{'0' * 64}",
    ),
    "manifest is a web page": (
        "manifests",
        says(200, b"<html>sign in</html>"),
        ArtifactInvalid,
        "is no JSON",
    ),
    "manifest without end": (
        "manifests",
        says(200, b" " * (5 << 20)),
        ArtifactInvalid,
        "larger than 4194304",
    ),
    "manifest of schema 1": (
        "manifests",
        says(200, b'{"schemaVersion":1,"fsLayers":[]}'),
        ArtifactInvalid,
        "schema 1",
    ),
    "manifest redirects for ever": (
        "manifests",
        lambda request: request.answer(307, b"", {"Location": request.path}),
        ArtifactUnavailable,
        "leads on more than 10 times",
    ),
    "manifest redirects to a file": (
        "manifests",
        says(302, Location="file:///etc/passwd"),
        ArtifactUnavailable,
        "neither http nor https",
    ),
    "blob 401": ("blobs", says(401), ArtifactUnavailable, "401"),
    "blob 403": ("blobs", says(403), ArtifactUnavailable, "layer 1 of 1: the server answers 403"),
    "blob 404": ("blobs", says(404), ArtifactUnavailable, "layer 1 of 1: the server answers 404"),
    "blob 502": ("blobs", says(502), ArtifactUnavailable, "answers 502"),
    "blob of other bytes": ("blobs", says(200, LAYER[:-1] + b"x"), ArtifactInvalid, "layer 1 of 1"),
    "blob too short": (
        "blobs",
        says(200, LAYER[:-10]),
        ArtifactInvalid,
        f"has {len(LAYER) - 10} bytes, should have {len(LAYER)}",
    ),
    "blob too long": ("blobs", says(200, LAYER + b"x"), ArtifactInvalid, f"should have {len(LAYER)}"),
    "blob cut each time": (
        "blobs",
        cuts,
        ArtifactUnavailable,
        "too early",
    ),
}


@pytest.fixture
def uri(own: OwnRegistry) -> str:
    return own.pushed.push(IMAGE)


@pytest.mark.parametrize(("part", "answer", "error", "reason"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_a_bad_answer_is_told_with_its_source_and_reason(
    own: OwnRegistry,
    uri: str,
    tmp_path: Path,
    into: Path,
    part: str,
    answer: Callable[[Request], None],
    error: type[WorkerError],
    reason: str,
) -> None:
    own.faults.append(on(part, answer))
    with pytest.raises(error) as caught:
        await registry_images(tmp_path).fetch(uri, into)
    assert type(caught.value) is error
    assert uri in str(caught.value)
    assert reason in str(caught.value)


async def test_nobody_listens(tmp_path: Path, into: Path, uri: str, own: OwnRegistry) -> None:
    own.close()
    with pytest.raises(ArtifactUnavailable, match=r"[Rr]efused"):
        await registry_images(tmp_path).fetch(uri, into)


async def test_a_name_that_cannot_be_resolved(tmp_path: Path, into: Path) -> None:
    with pytest.raises(ArtifactUnavailable, match=r"nowhere\.invalid"):
        await registry_images(tmp_path).fetch("oci://nowhere.invalid/b:1", into)


async def test_a_malformed_reference_says_what_is_wrong(tmp_path: Path, into: Path) -> None:
    with pytest.raises(ArtifactUnavailable, match="lower-case"):
        await registry_images(tmp_path).fetch("oci://quay.io/Upper:1", into)


@pytest.mark.parametrize("status", [0, 408, 429, 499, 500, 502, 503, 504, 522])
@pytest.mark.parametrize("part", ["manifests", "blobs"])
async def test_what_passes_is_waited_out(
    own: OwnRegistry, uri: str, tmp_path: Path, into: Path, status: int, part: str
) -> None:
    """G-2.6.5: 0 is a connection that ends without an answer."""

    def once(request: Request) -> bool:
        if part not in request.path:
            return False
        own.faults.remove(once)
        if status:
            request.answer(status, b"")
        else:
            hangs_up(request)
        return True

    own.faults.append(once)
    await registry_images(tmp_path).fetch(uri, into)
    assert (into / "run.sh").exists()


async def test_a_connection_that_stalls_is_given_up_and_the_rest_fetched_by_another(
    own: OwnRegistry, uri: str, tmp_path: Path, into: Path
) -> None:
    """G-W19, N-B17: a stall rule for each connection, no limit for the whole transfer."""

    def stall_once(request: Request) -> bool:
        if "/blobs/" not in request.path:
            return False
        own.faults.remove(stall_once)
        request.send_response(200)
        request.send_header("Content-Length", str(len(LAYER)))
        request.end_headers()
        request.wfile.write(LAYER[:10_000])
        request.wfile.flush()
        request.rfile.read(1)  # until the client hangs up
        request.close_connection = True
        return True

    own.faults.append(stall_once)
    await registry_images(tmp_path, stall_s=0.5).fetch(uri, into)
    assert [headers.get("Range") for _, headers in own.gets("/blobs/")] == [
        None,
        f"bytes=10000-{len(LAYER) - 1}",
    ]


async def test_a_trickle_counts_as_a_stall(own: OwnRegistry, uri: str, tmp_path: Path, into: Path) -> None:
    """G-W19: a byte now and then must not hold an install for ever."""

    def trickle(request: Request) -> bool:
        if "/blobs/" not in request.path:
            return False
        request.send_response(200)
        request.send_header("Content-Length", str(len(LAYER)))
        request.end_headers()
        own.faults.remove(trickle)
        try:
            for byte in LAYER:
                request.wfile.write(bytes([byte]))
                request.wfile.flush()
                time.sleep(0.02)
        except OSError:
            request.close_connection = True
        return True

    own.faults.append(trickle)
    await registry_images(tmp_path, stall_s=0.5).fetch(uri, into)
    assert len(own.gets("/blobs/")) == 2


async def test_a_wrong_range_is_not_believed(own: OwnRegistry, uri: str, tmp_path: Path, into: Path) -> None:
    big = gzip.compress(archives.tree_tar({"big": os.urandom(3 << 20)}), 1, mtime=0)
    uri = own.pushed.push(Image([big]), "big")

    def shifted(request: Request) -> bool:
        if "Range" not in request.headers:
            return False
        request.answer(206, big, {"Content-Range": f"bytes 7-{len(big) - 1}/{len(big)}"})
        return True

    own.faults.append(shifted)
    with pytest.raises(ArtifactUnavailable, match="another range than it was asked for"):
        await registry_images(tmp_path).fetch(uri, into)


BOMB = gzip.compress(archives.tar([archives.entry("zeros", bytes(30 << 20))]), 9, mtime=0)


async def test_a_bomb_is_stopped_at_the_limit(own: OwnRegistry, tmp_path: Path, into: Path) -> None:
    """G-W6."""
    limits = TreeLimits(total_bytes=5 << 20)
    uri = own.pushed.push(Image([BOMB]))
    with pytest.raises(ArtifactInvalid, match="unpacks to more than 5242880 bytes"):
        await registry_images(tmp_path, limits=limits).fetch(uri, into)
    assert sum(path.stat().st_size for path in into.rglob("*")) <= 6 << 20


@pytest.mark.parametrize(
    ("layer", "kind"),
    [(LAYER[:-20], "gzip"), (LAYER[:-1], "gzip"), (ZSTD[:-20], "zstd"), (ZSTD[:-1], "zstd")],
    ids=["gzip", "gzip but a byte", "zstd", "zstd but a byte"],
)
async def test_a_truncated_layer_with_the_right_digest_is_refused(
    own: OwnRegistry, tmp_path: Path, into: Path, layer: bytes, kind: str
) -> None:
    """Also where all of its files are there, and only a checksum is missing."""
    uri = own.pushed.push(Image([layer]))
    with pytest.raises(ArtifactInvalid, match=f"layer 1 of 1 is broken {kind}: it ends too early") as caught:
        await registry_images(tmp_path).fetch(uri, into)
    assert uri in str(caught.value)


LAYERS: dict[str, tuple[dict[str, Any], str]] = {
    "a digest that is a path": ({"digest": "../../etc/passwd", "size": 1}, "is no digest"),
    "a digest of another kind": (
        {"digest": f"md5:{'0' * 32}", "size": 1},
        "sha256 and sha512 are understood",
    ),
    "a size below zero": ({"digest": digest_of(b""), "size": -1}, "broken descriptor"),
    "something else than a layer": (
        {"digest": digest_of(b""), "size": 0, "mediaType": "application/wasm"},
        "wasm",
    ),
}


@pytest.mark.parametrize(("layer", "reason"), LAYERS.values(), ids=LAYERS.keys())
async def test_a_manifest_of_impossible_layers_is_refused_before_anything_is_fetched(
    own: OwnRegistry, tmp_path: Path, into: Path, layer: dict[str, Any], reason: str
) -> None:
    image = Image([LAYER], fields={"layers": [layer]})
    with pytest.raises(ArtifactInvalid, match=reason):
        await registry_images(tmp_path).fetch(own.pushed.push(image), into)
    assert own.gets("/blobs/") == []


async def test_more_layers_than_any_image_has(own: OwnRegistry, tmp_path: Path, into: Path) -> None:
    many = [archives.descriptor(b"%d" % number, archives.GZIP_LAYER) for number in range(600)]
    with pytest.raises(ArtifactInvalid, match="an image of 600 layers, 512 are taken"):
        await registry_images(tmp_path).fetch(own.pushed.push(Image([LAYER], fields={"layers": many})), into)


async def test_what_cannot_fit_is_refused_before_the_first_byte(
    own: OwnRegistry, uri: str, tmp_path: Path, into: Path
) -> None:
    """G-W6: the disk keeps room for others."""
    with pytest.raises(NoSpace, match=r"LOCALAI_WORKER_DISK_FLOOR.* are missing"):
        await registry_images(tmp_path, floor_bytes=1 << 60).fetch(uri, into)
    assert own.gets("/blobs/") == []


async def test_a_store_that_cannot_be_written_says_so(uri: str, tmp_path: Path, into: Path) -> None:
    (tmp_path / "blobs").write_bytes(b"a file in the way")
    with pytest.raises(FileUnwritable):
        await registry_images(tmp_path).fetch(uri, into)


async def test_a_hostile_layer_is_refused_and_not_fetched_twice(
    own: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    """G-W6."""
    stream = io.BytesIO(archives.tar([archives.entry("../out", b"1")]))
    uri = own.pushed.push(Image([gzip.compress(stream.getvalue(), mtime=0)]))
    with pytest.raises(ArtifactInvalid, match="leaves the artifact"):
        await registry_images(tmp_path).fetch(uri, into)
    assert len(own.gets("/blobs/")) == 1
    assert not (tmp_path / "out").exists()
