"""What the worker asks of registries: docker-registry answers so, and so does the tests' own one."""

import gzip
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from localai_worker.adapters.artifacts.registry.images import RegistryImages
from localai_worker.domain.errors import ArtifactMissing, ArtifactUnavailable
from tests import archives
from tests.archives import digest_of
from tests.docker_registry import DockerRegistry
from tests.registry import PASSWORD, USER, Image, OwnRegistry, Registry, own_registry, registry_images
from tests.token_server import SERVICE, Purchase, TokenServer, token_server

IDENTITY = "an-identity-token"
IMAGE = Image([gzip.compress(archives.tree_tar({"run.sh": b"#!/bin/sh\n", "data": os.urandom(300_000)}))])
TWO_LAYERS = Image([*IMAGE.layers, gzip.compress(archives.tree_tar({"more": os.urandom(300_000)}))])


@dataclass
class Place:
    """A registry, and the docker configuration of a node that may pull from it."""

    registry: Registry
    top: Path
    tokens: TokenServer | None = None
    own: OwnRegistry | None = None

    def images(self, entry: dict[str, str] | None = None) -> RegistryImages:
        """What a worker reads with that has this login for the registry, by default the right one."""
        login = {"username": USER, "password": PASSWORD} if entry is None else entry
        auths = {self.registry.host: login} if login else {}
        (self.top / "config.json").write_bytes(archives.to_json({"auths": auths}))
        return registry_images(self.top, {"DOCKER_CONFIG": str(self.top)})

    def forget_what_was_sold(self) -> None:
        """No token that somebody has is good any longer, as after it has run out."""
        if isinstance(self.registry, DockerRegistry):
            assert self.tokens is not None
            self.tokens.change_key()
            self.tokens.write_certificate(self.registry.bundle)
            self.registry.stop()
            self.registry.start()
        else:
            assert self.own is not None
            self.own.token = "another-token"


@contextmanager
def docker_place(top: Path, auth: str) -> Iterator[Place]:
    with ExitStack() as held:
        tokens = held.enter_context(token_server(USER, PASSWORD, IDENTITY)) if auth == "token" else None
        registry = DockerRegistry(top, is_guarded=auth == "basic", tokens=tokens)
        registry.start()
        held.callback(registry.stop)
        yield Place(registry, top, tokens)


@contextmanager
def own_place(top: Path, auth: str) -> Iterator[Place]:
    with own_registry(auth={"token": "bearer"}.get(auth, auth), sells_to_anybody=False) as own:
        yield Place(own.pushed, top, own=own)


@contextmanager
def place_of(kind: str, auth: str, top: Path) -> Iterator[Place]:
    with (docker_place if kind == "docker-registry" else own_place)(top, auth) as place:
        yield place


KINDS = ("docker-registry", "own")


@pytest.fixture(
    scope="module", params=[(kind, auth) for kind in KINDS for auth in ("", "basic", "token")], ids=" ".join
)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    kind, auth = request.param
    with place_of(kind, auth, tmp_path_factory.mktemp("registry")) as place:
        yield place


@pytest.fixture(params=[(kind, auth) for kind in KINDS for auth in ("basic", "token")], ids=" ".join)
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A registry that wants a login, one for each test."""
    kind, auth = request.param
    with place_of(kind, auth, tmp_path) as place:
        yield place


@pytest.fixture(params=KINDS)
def sold(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A registry that wants a token."""
    with place_of(request.param, "token", tmp_path) as place:
        yield place


@pytest.fixture
def docker_sold(tmp_path: Path) -> Iterator[Place]:
    with docker_place(tmp_path, "token") as place:
        yield place


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def get(place: Place, path: str, **headers: str) -> httpx.Response:
    url = f"http://{place.registry.host}/v2/team/backend/{path}"
    return httpx.get(url, headers={**place.registry.headers, **headers}, trust_env=False, verify=False)


async def test_what_was_pushed_is_fetched(place: Place, into: Path) -> None:
    """G-2.6.3: whoever has the login, however the registry asks for it."""
    uri = place.registry.push(IMAGE)
    fetched = await place.images().fetch(uri, into)
    assert fetched.digest == IMAGE.digest
    assert (into / "run.sh").read_bytes() == b"#!/bin/sh\n"


async def test_of_an_index_the_platforms_image_is_fetched(place: Place, into: Path) -> None:
    other = Image([gzip.compress(archives.tree_tar({"other": b""}))])
    uri = place.registry.push_index({"linux/arm64": other, "linux/amd64": IMAGE}, "multi")
    await place.images().fetch(uri, into)
    assert (into / "run.sh").exists()


@pytest.mark.parametrize("uri", ["team/backend:nothing", "team/nobody:1"])
async def test_a_tag_or_repository_that_is_not_there_is_missing(place: Place, into: Path, uri: str) -> None:
    place.registry.push(IMAGE)
    with pytest.raises(ArtifactMissing):
        await place.images().fetch(f"oci://{place.registry.host}/{uri}", into)


def test_a_range_of_a_blob_is_answered_with_just_that(place: Place) -> None:
    place.registry.push(IMAGE)
    layer = IMAGE.layers[0]
    answer = get(place, f"blobs/{digest_of(layer)}", Range="bytes=1000-1999")
    assert (answer.status_code, answer.content) == (206, layer[1000:2000])
    assert answer.headers["content-range"] == f"bytes 1000-1999/{len(layer)}"


def test_a_manifest_comes_with_its_type_and_digest(place: Place) -> None:
    place.registry.push(IMAGE)
    answer = get(place, "manifests/1", Accept=archives.MANIFEST)
    assert answer.content == IMAGE.manifest
    assert answer.headers["content-type"] == archives.MANIFEST
    assert answer.headers["docker-content-digest"] == IMAGE.digest


def test_what_is_unknown_is_told_with_a_code(place: Place) -> None:
    manifest = get(place, "manifests/nothing", Accept=archives.MANIFEST)
    blob = get(place, f"blobs/sha256:{'0' * 64}")
    assert (manifest.status_code, manifest.json()["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")
    assert (blob.status_code, blob.json()["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")


LOGINS = {"no": {}, "a wrong": {"username": USER, "password": "wr0ng-secret"}}


@pytest.mark.parametrize("login", LOGINS.values(), ids=LOGINS.keys())
async def test_who_is_refused_is_told_by_whom_and_where_logins_are_looked_for(
    guarded: Place, into: Path, login: dict[str, str]
) -> None:
    uri = guarded.registry.push(IMAGE)
    with pytest.raises(ArtifactUnavailable) as caught:
        await guarded.images(login).fetch(uri, into)
    text = str(caught.value)
    assert uri in text
    assert str(guarded.top / "config.json") in text
    assert f"`docker login {guarded.registry.host}`" in text
    assert ("there is no login for" if not login else "the login is from") in text
    assert "wr0ng-secret" not in text
    assert list(into.iterdir()) == []


async def test_an_identity_token_buys_access(docker_sold: Place, into: Path) -> None:
    """G-2.6.3: by OAuth2, in the body of a POST."""
    uri = docker_sold.registry.push(IMAGE)
    await docker_sold.images({"identitytoken": IDENTITY}).fetch(uri, into)
    assert (into / "run.sh").exists()
    assert docker_sold.tokens is not None
    (purchase,) = docker_sold.tokens.purchases
    assert purchase.method == "POST"
    assert purchase.fields == {
        "grant_type": "refresh_token",
        "refresh_token": IDENTITY,
        "service": SERVICE,
        "scope": "repository:team/backend:pull",
        "client_id": "localai-worker",
    }


async def test_a_public_repository_is_pulled_by_a_token_that_costs_no_login(
    docker_sold: Place, into: Path
) -> None:
    """G-2.6.3: one token, for pulling this repository, and no login is shown to anybody."""
    assert docker_sold.tokens is not None
    docker_sold.tokens.sells_to_anybody = True
    uri = docker_sold.registry.push(TWO_LAYERS)
    await docker_sold.images({}).fetch(uri, into)
    assert {path.name for path in into.iterdir()} == {"run.sh", "data", "more"}
    fields = {"service": SERVICE, "scope": "repository:team/backend:pull"}
    assert docker_sold.tokens.purchases == [Purchase("GET", fields, "")]


async def test_each_repository_gets_a_token_of_its_own(docker_sold: Place, into: Path) -> None:
    uri = docker_sold.registry.push(IMAGE)
    images = docker_sold.images()
    with pytest.raises(ArtifactMissing):
        await images.fetch(f"oci://{docker_sold.registry.host}/team/nobody:1", into)
    await images.fetch(uri, into)
    assert docker_sold.tokens is not None
    scopes = [each.fields["scope"] for each in docker_sold.tokens.purchases]
    assert scopes == ["repository:team/nobody:pull", "repository:team/backend:pull"]


async def test_a_token_that_runs_out_between_manifest_and_layers_is_bought_anew(
    sold: Place, into: Path
) -> None:
    uri = sold.registry.push(TWO_LAYERS)

    async def approve(_: str) -> None:
        sold.forget_what_was_sold()

    fetched = await sold.images().fetch(uri, into, approve=approve)
    assert fetched.downloaded_bytes == sum(map(len, TWO_LAYERS.layers))
    assert {path.name for path in into.iterdir()} == {"run.sh", "data", "more"}
