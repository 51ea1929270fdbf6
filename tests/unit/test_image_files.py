"""Image archives: both forms, platforms, and every way they can be broken."""

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from localai_worker.adapters.artifacts.image_manifest import host_platform
from localai_worker.adapters.artifacts.ocifile import ImageFiles
from localai_worker.adapters.artifacts.tree_limits import TreeLimits
from localai_worker.app.demo.oci_archive import pack_image
from localai_worker.domain.errors import ArtifactInvalid, ArtifactUnavailable
from localai_worker.domain.ports.artifacts import FetchedArtifact
from tests import archives
from tests.archives import INDEX, MANIFEST, descriptor, digest_of, entry, symlink, tar, to_json

LAYERS = (
    archives.tree_tar({"run.sh": b"lower", "old": b"1"}),
    tar([entry("run.sh", b"upper"), entry(".wh.old")]),
)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


async def fetch(archive: Path, into: Path, **options: Any) -> FetchedArtifact:
    return await ImageFiles(**options).fetch(f"ocifile://{archive}", into)


@pytest.mark.parametrize("write", [archives.write_oci, archives.write_docker], ids=["oci", "docker"])
async def test_layers_apply_from_the_lowest_to_the_highest(tmp_path: Path, into: Path, write: Any) -> None:
    await fetch(write(tmp_path / "i.tar", *LAYERS), into)
    assert [path.name for path in into.iterdir()] == ["run.sh"]
    assert (into / "run.sh").read_bytes() == b"upper"


async def test_the_digest_is_that_of_the_image_manifest(tmp_path: Path, into: Path) -> None:
    """G-W3: the digest is that of what was unpacked."""
    layers = [gzip.compress(layer, mtime=0) for layer in LAYERS]
    manifest, _ = archives.image_blobs(layers)
    archive = archives.write_archive(tmp_path / "i.tar", archives.oci_members(layers))
    assert (await fetch(archive, into)).digest == digest_of(manifest)


async def test_plain_layers_in_an_oci_layout_are_read_too(tmp_path: Path, into: Path) -> None:
    """G-2.5.5."""
    await fetch(archives.write_archive(tmp_path / "i.tar", archives.oci_members(LAYERS)), into)
    assert (into / "run.sh").read_bytes() == b"upper"


async def test_docker_archives_may_share_layers_by_links_and_zip_them(tmp_path: Path, into: Path) -> None:
    """G-2.5.5."""
    members = archives.docker_members([LAYERS[0], LAYERS[0]])
    shared = members.pop("1/layer.tar")
    members["0/layer.tar"] = gzip.compress(shared)
    content = [entry(name, content) for name, content in members.items()]
    (tmp_path / "i.tar").write_bytes(tar([*content, symlink("1/layer.tar", "../0/layer.tar")]))
    await fetch(tmp_path / "i.tar", into)
    assert (into / "run.sh").read_bytes() == b"lower"


def image_for(text: str) -> tuple[bytes, dict[str, bytes]]:
    return archives.image_blobs([gzip.compress(archives.tree_tar({"run.sh": text.encode()}), mtime=0)])


def platform(architecture: str, os_name: str = "linux", **fields: str) -> dict[str, Any]:
    return {"platform": {"os": os_name, "architecture": architecture, **fields}}


def index_archive(path: Path, manifests: list[dict[str, Any]], blobs: Mapping[str, bytes]) -> Path:
    index = to_json({"schemaVersion": 2, "manifests": manifests})
    return archives.write_archive(path, {"index.json": index, **blobs})


@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize(
    ("wanted", "content"), [("linux/arm64", b"arm"), ("linux/amd64", b"unsaid"), ("linux/s390x", b"z")]
)
async def test_of_several_platforms_the_one_of_the_host_is_taken(
    tmp_path: Path, into: Path, is_nested: bool, wanted: str, content: bytes
) -> None:
    """G-2.6.2."""
    (arm, arm_blobs), (unsaid, unsaid_blobs), (z, z_blobs) = map(image_for, ("arm", "unsaid", "z"))
    manifests = [
        descriptor(arm, MANIFEST, **platform("arm64", variant="v8")),
        descriptor(unsaid, MANIFEST),  # without a platform: counts as linux/amd64
        descriptor(z, MANIFEST, **platform("s390x")),
        descriptor(b"attestation", MANIFEST, **platform("unknown", "unknown")),
    ]
    blobs = {**arm_blobs, **unsaid_blobs, **z_blobs}
    if is_nested:
        inner = to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
        blobs[archives.blob_name(digest_of(inner))] = inner
        manifests = [descriptor(inner, INDEX)]
    await fetch(index_archive(tmp_path / "i.tar", manifests, blobs), into, platform=wanted)
    assert (into / "run.sh").read_bytes() == content


async def test_a_single_image_is_taken_whatever_its_platform(tmp_path: Path, into: Path) -> None:
    """G-2.6.2."""
    manifest, blobs = image_for("only")
    archive = index_archive(
        tmp_path / "i.tar", [descriptor(manifest, MANIFEST, **platform("riscv64"))], blobs
    )
    await fetch(archive, into)
    assert (into / "run.sh").read_bytes() == b"only"


async def test_the_platforms_at_hand_are_told_when_none_fits(tmp_path: Path, into: Path) -> None:
    (one, one_blobs), (two, two_blobs) = image_for("1"), image_for("2")
    manifests = [
        descriptor(one, MANIFEST, **platform("arm64")),
        descriptor(two, MANIFEST, **platform("s390x")),
    ]
    archive = index_archive(tmp_path / "i.tar", manifests, {**one_blobs, **two_blobs})
    with pytest.raises(ArtifactInvalid, match="no image for linux/amd64; it has linux/arm64, linux/s390x"):
        await fetch(archive, into, platform="linux/amd64")


async def test_two_images_in_one_archive_are_one_too_many(tmp_path: Path, into: Path) -> None:
    (one, one_blobs), (two, two_blobs) = image_for("1"), image_for("2")
    manifests = [descriptor(one, MANIFEST), descriptor(two, MANIFEST)]
    archive = index_archive(tmp_path / "i.tar", manifests, {**one_blobs, **two_blobs})
    with pytest.raises(ArtifactInvalid, match="names 2 images for linux/amd64; save a single one"):
        await fetch(archive, into, platform="linux/amd64")


def oci(**changes: Any) -> dict[str, bytes]:
    """An OCI layout with its manifest changed, digests made right again."""
    layer = gzip.compress(LAYERS[0], mtime=0)
    manifest, blobs = archives.image_blobs([layer])
    document = {**json.loads(manifest), **changes}
    manifest = to_json(document)
    blobs[archives.blob_name(digest_of(manifest))] = manifest
    return {"index.json": to_json({"manifests": [descriptor(manifest, MANIFEST)]}), **blobs}


def without(members: Mapping[str, bytes], part: str) -> dict[str, bytes]:
    return {name: content for name, content in members.items() if part not in name}


def replaced(members: Mapping[str, bytes], name: str, content: bytes) -> dict[str, bytes]:
    assert name in members
    return {**members, name: content}


def edited(members: Mapping[str, bytes], before: bytes, after: bytes) -> dict[str, bytes]:
    return {name: content.replace(before, after) for name, content in members.items()}


ZSTD = b"\x28\xb5\x2f\xfd" + bytes(64)
LAYER = gzip.compress(LAYERS[0], mtime=0)
GOOD_OCI = oci()
LAYER_NAME = archives.blob_name(digest_of(LAYER))
CONFIG_NAME = next(name for name, content in GOOD_OCI.items() if b'"diff_ids"' in content)
DOCKER = archives.docker_members(LAYERS)
MD5_LAYER = {"digest": f"md5:{'0' * 32}", "size": 1}
NUMBERS = b'{"manifests":[{"digest":1,"size":"x"}]}'

BROKEN: dict[str, tuple[Mapping[str, bytes], str]] = {
    "neither form": ({"readme": b"hello"}, "neither index.json"),
    "index is no JSON": ({"index.json": b"{"}, "index.json is no JSON"),
    "index is a list": ({"index.json": b"[]"}, "index.json is no JSON object"),
    "index without manifests": ({"index.json": b"{}"}, "has no list of manifests"),
    "index of nothing": ({"index.json": b'{"manifests":[]}'}, "no image for"),
    "a descriptor of numbers": ({"index.json": NUMBERS}, "a broken descriptor"),
    "a manifest that is missing": ({"index.json": GOOD_OCI["index.json"]}, "is missing in it"),
    "a layer that is missing": (without(GOOD_OCI, LAYER_NAME), "is missing in it"),
    "a layer cut short": (replaced(GOOD_OCI, LAYER_NAME, LAYER[:-1]), "should have"),
    "a layer of other bytes": (replaced(GOOD_OCI, LAYER_NAME, LAYER[::-1]), "layer 1 of 1"),
    "a layer of half a zstd frame": (
        oci(layers=[descriptor(ZSTD)]) | {archives.blob_name(digest_of(ZSTD)): ZSTD},
        "layer 1 of 1",
    ),
    "a layer of another kind": (oci(layers=[descriptor(LAYER, "application/wasm")]), "is application/wasm"),
    "a layer by another hash": (oci(layers=[MD5_LAYER]) | {f"blobs/md5/{'0' * 32}": b"x"}, "sha512"),
    "a layer elsewhere": (oci(layers=[{"digest": "../../etc/passwd", "size": 1}]), "is missing in it"),
    "a config of other bytes": (replaced(GOOD_OCI, CONFIG_NAME, GOOD_OCI[CONFIG_NAME][::-1]), "should be"),
    "a manifest of other bytes": (edited(oci(), b": 2", b": 3"), "should be sha256"),
    "no layers": (oci(layers=[]), "without layers"),
    "layers of null": (oci(layers=None), "has no list of layers"),
    "no config": (oci(config=None), "is no JSON object"),
    "two docker images": ({"manifest.json": b"[{},{}]"}, "names 2 images"),
    "no docker image": ({"manifest.json": b"{}"}, "names no list of images"),
    "a docker image without config": ({"manifest.json": b'[{"Layers":[]}]'}, "names no config"),
    "docker layers of numbers": ({"manifest.json": b'[{"Config":"c","Layers":[1]}]'}, "no list of texts"),
    "a docker layer that is missing": (without(DOCKER, "1/layer"), "1/layer.tar is missing"),
    "a docker layer of other bytes": (replaced(DOCKER, "1/layer.tar", LAYERS[0]), "content of layer 2 of 2"),
    "more docker layers than diff ids": (
        replaced(
            DOCKER,
            "manifest.json",
            DOCKER["manifest.json"].replace(b'["0/layer.tar"', b'["0/layer.tar", "0/layer.tar"'),
        ),
        "3 layers, but 2 diff ids",
    ),
    "a docker config of other bytes": (
        {name: b"{}" if len(name) == 69 else content for name, content in DOCKER.items()},
        "should be sha256",
    ),
    "a document without end": ({"index.json": b" " * (5 << 20)}, "at most 4194304"),
}  # fmt: skip


@pytest.mark.parametrize(("members", "reason"), BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_archive_is_refused_with_the_reason(
    tmp_path: Path, into: Path, members: Mapping[str, bytes], reason: str
) -> None:
    archive = archives.write_archive(tmp_path / "i.tar", members)
    with pytest.raises(ArtifactInvalid) as caught:
        await fetch(archive, into)
    assert reason in str(caught.value)


@pytest.mark.parametrize("members", [without(DOCKER, "1/layer"), without(GOOD_OCI, LAYER_NAME)])
async def test_a_missing_layer_is_told_before_anything_is_unpacked(
    tmp_path: Path, into: Path, members: Mapping[str, bytes]
) -> None:
    with pytest.raises(ArtifactInvalid):
        await fetch(archives.write_archive(tmp_path / "i.tar", members), into)
    assert list(into.iterdir()) == []


async def test_an_archive_of_countless_members_is_no_image(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localai_worker.adapters.artifacts.image_archive._MEMBERS", 3)
    with pytest.raises(ArtifactInvalid, match="more than 3 members"):
        await fetch(archives.write_archive(tmp_path / "i.tar", GOOD_OCI), into)


async def test_indexes_that_lead_to_indexes_for_ever_end(tmp_path: Path, into: Path) -> None:
    blobs = {}
    inner = to_json({"manifests": []})
    for _ in range(10):
        blobs[archives.blob_name(digest_of(inner))] = inner
        inner = to_json({"manifests": [descriptor(inner, INDEX)]})
    archive = archives.write_archive(tmp_path / "i.tar", {"index.json": inner, **blobs})
    with pytest.raises(ArtifactInvalid, match="nested deeper than 4"):
        await fetch(archive, into)


async def test_links_in_a_circle_inside_the_archive_are_a_missing_member(tmp_path: Path, into: Path) -> None:
    circle = [symlink("index.json", "a"), symlink("a", "index.json"), entry("manifest.json", b"[]")]
    (tmp_path / "i.tar").write_bytes(tar(circle))
    with pytest.raises(ArtifactInvalid, match="names 0 images"):
        await fetch(tmp_path / "i.tar", into)


@pytest.mark.parametrize("keep", [0.3, 0.9])
async def test_a_truncated_archive_is_refused(tmp_path: Path, into: Path, keep: float) -> None:
    archive = archives.write_oci(tmp_path / "i.tar", archives.tree_tar({"run.sh": os.urandom(100_000)}))
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ArtifactInvalid):
        await fetch(archive, into)


async def test_an_archive_zipped_as_a_whole_is_refused_with_the_remedy(tmp_path: Path, into: Path) -> None:
    (tmp_path / "i.tar").write_bytes(
        gzip.compress(archives.write_oci(tmp_path / "x", LAYERS[0]).read_bytes())
    )
    with pytest.raises(ArtifactInvalid, match="unzip it first"):
        await fetch(tmp_path / "i.tar", into)


@pytest.mark.parametrize(
    "uri",
    ["ocifile://relative.tar", "ocifile://", "ocifile:///nowhere/i.tar", "ocifile:///", "ocifile:///a\0b"],
)
async def test_a_path_that_is_no_file_is_unavailable(into: Path, uri: str) -> None:
    with pytest.raises(ArtifactUnavailable) as caught:
        await ImageFiles().fetch(uri, into)
    assert caught.value.uri == uri


async def test_a_pipe_is_not_waited_for(tmp_path: Path, into: Path) -> None:
    os.mkfifo(tmp_path / "i.tar")
    with pytest.raises(ArtifactUnavailable, match="no regular file"):
        await fetch(tmp_path / "i.tar", into)


async def test_limits_hold_over_all_layers(tmp_path: Path, into: Path) -> None:
    layers = [archives.tree_tar({f"f{number}": bytes(9000)}) for number in range(3)]
    archive = archives.write_oci(tmp_path / "i.tar", *layers)
    with pytest.raises(ArtifactInvalid, match="20480 bytes"):
        await fetch(archive, into, limits=TreeLimits(total_bytes=20_480))


async def test_what_the_demo_packs_is_unpacked_as_it_was(tmp_path: Path, into: Path) -> None:
    """An archive that is both forms at once, as docker writes it since version 25."""
    source = tmp_path / "tree"
    (source / "lib/empty").mkdir(parents=True)
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    (source / "lib/data.bin").write_bytes(os.urandom(3_000_000))
    (source / "start").symlink_to("run.sh")
    digest = pack_image(source, tmp_path / "i.tar", "example/tool:latest")
    fetched = await fetch(tmp_path / "i.tar", into)
    assert fetched == FetchedArtifact(digest=digest, size_bytes=3_000_010)
    compared = subprocess.run(
        ["diff", "-r", "--no-dereference", source, into], capture_output=True, check=False
    )
    assert (compared.returncode, compared.stdout) == (0, b"")
    assert os.access(into / "run.sh", os.X_OK)


async def test_unpacking_takes_no_more_memory_for_more_content(tmp_path: Path, into: Path) -> None:
    layer = tar([entry("big", bytes(64 << 20)), *(entry(f"small/{number}", b"x") for number in range(300))])
    archive = archives.write_oci(tmp_path / "i.tar", layer)
    del layer
    tracemalloc.start()
    try:
        await fetch(archive, into)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 12 << 20


async def test_a_cancelled_fetch_stops_at_once(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = tar([entry(f"f{number}", b"x") for number in range(10)])
    archive = archives.write_docker(tmp_path / "i.tar", layer)
    with anyio.CancelScope() as scope:

        def write_once(descriptor: int, chunk: bytes) -> int:
            anyio.from_thread.run_sync(scope.cancel)
            return len(chunk)

        monkeypatch.setattr("localai_worker.adapters.artifacts.tree.os.write", write_once)
        await fetch(archive, into)
    assert scope.cancelled_caught
    assert 0 < len(list(into.iterdir())) < 10  # the thread may be at the next file before it hears of it


def test_the_host_platform_is_spelled_as_images_spell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert host_platform() == f"{sys.platform}/arm64"
