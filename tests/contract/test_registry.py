"""What the worker asks of registries: docker-registry answers so, and so does the tests' own one."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from localai_worker.domain.errors import ArtifactMissing, ArtifactUnavailable
from tests import archives
from tests.archives import digest_of
from tests.registry import PASSWORD, USER, Image, Registry, docker_registry, own_registry, registry_images

KINDS = ("docker-registry", "own")
IMAGE = Image([gzip.compress(archives.tree_tar({"run.sh": b"#!/bin/sh\n", "data": os.urandom(300_000)}))])


@pytest.fixture(scope="module", params=KINDS)
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if request.param == "own":
        with own_registry() as own:
            yield own.pushed
    else:
        with docker_registry(tmp_path_factory.mktemp("registry")) as real:
            yield real


@pytest.fixture(scope="module", params=KINDS)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that wants a basic login."""
    if request.param == "own":
        with own_registry(auth="basic") as own:
            yield own.pushed
    else:
        with docker_registry(tmp_path_factory.mktemp("guarded"), auth="basic") as real:
            yield real


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def get(registry: Registry, path: str, **headers: str) -> httpx.Response:
    return httpx.get(
        f"http://{registry.host}/v2/team/backend/{path}", headers=headers, trust_env=False, verify=False
    )


async def test_what_was_pushed_is_fetched(registry: Registry, tmp_path: Path, into: Path) -> None:
    fetched = await registry_images(tmp_path).fetch(registry.push(IMAGE), into)
    assert fetched.digest == IMAGE.digest
    assert fetched.downloaded_bytes == len(IMAGE.layers[0])
    assert (into / "run.sh").read_bytes() == b"#!/bin/sh\n"


async def test_of_an_index_the_platforms_image_is_fetched(
    registry: Registry, tmp_path: Path, into: Path
) -> None:
    other = Image([gzip.compress(archives.tree_tar({"other": b""}))])
    await registry_images(tmp_path).fetch(
        registry.push_index({"linux/arm64": other, "linux/amd64": IMAGE}, "multi"), into
    )
    assert (into / "run.sh").exists()


@pytest.mark.parametrize("uri", ["team/backend:nothing", "team/nobody:1"])
async def test_a_tag_or_repository_that_is_not_there_is_missing(
    registry: Registry, tmp_path: Path, into: Path, uri: str
) -> None:
    registry.push(IMAGE)
    with pytest.raises(ArtifactMissing):
        await registry_images(tmp_path).fetch(f"oci://{registry.host}/{uri}", into)


def test_a_range_of_a_blob_is_answered_with_just_that(registry: Registry) -> None:
    registry.push(IMAGE)
    layer = IMAGE.layers[0]
    answer = get(registry, f"blobs/{digest_of(layer)}", Range="bytes=1000-1999")
    assert (answer.status_code, answer.content) == (206, layer[1000:2000])
    assert answer.headers["content-range"] == f"bytes 1000-1999/{len(layer)}"


def test_a_manifest_comes_with_its_type_and_digest(registry: Registry) -> None:
    registry.push(IMAGE)
    answer = get(registry, "manifests/1", Accept=archives.MANIFEST)
    assert answer.content == IMAGE.manifest
    assert answer.headers["content-type"] == archives.MANIFEST
    assert answer.headers["docker-content-digest"] == IMAGE.digest


def test_what_is_unknown_is_told_with_a_code(registry: Registry) -> None:
    manifest = get(registry, "manifests/nothing", Accept=archives.MANIFEST)
    blob = get(registry, f"blobs/sha256:{'0' * 64}")
    assert (manifest.status_code, manifest.json()["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")
    assert (blob.status_code, blob.json()["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")


async def test_a_login_opens_what_is_closed_without(guarded: Registry, tmp_path: Path, into: Path) -> None:
    uri = guarded.push(IMAGE)
    with pytest.raises(ArtifactUnavailable, match="docker login"):
        await registry_images(tmp_path).fetch(uri, into)
    login = archives.to_json({"auths": {guarded.host: {"username": USER, "password": PASSWORD}}})
    (tmp_path / "config.json").write_bytes(login)
    await registry_images(tmp_path, {"DOCKER_CONFIG": str(tmp_path)}).fetch(uri, into)
    assert (into / "run.sh").exists()
