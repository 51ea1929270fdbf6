"""Logins: where they are found, what they buy, and where they never go."""

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from localai_worker.adapters.artifacts.registry.credentials import ANONYMOUS, DockerLogins, Login
from localai_worker.adapters.artifacts.registry.tokens import Challenge, Entry, Tokens
from localai_worker.adapters.artifacts.web.client import WebClient
from localai_worker.adapters.artifacts.web.flight import Flight
from localai_worker.domain.errors import ArtifactUnavailable
from localai_worker.domain.image_reference import ImageReference
from tests import archives
from tests.registry import (
    PASSWORD,
    PATIENCE,
    USER,
    Image,
    OwnRegistry,
    Request,
    own_registry,
    registry_images,
)

IMAGE = Image([archives.tree_tar({"run.sh": b"#!/bin/sh\n"})])
AUTH = base64.b64encode(b"me:secret:with:colons").decode()
ME = Login("me", "secret:with:colons")


def login(top: Path, config: Mapping[str, Any], uri: str) -> Login:
    (top / "config.json").write_text(json.dumps(config))
    return DockerLogins({"DOCKER_CONFIG": str(top)}).of(ImageReference.parse(uri))


@pytest.mark.parametrize(
    ("key", "uri"),
    [
        ("quay.io", "quay.io/a/b:1"),
        ("https://quay.io", "quay.io/a/b:1"),
        ("https://quay.io/v2/", "quay.io/a/b:1"),
        ("quay.io/a", "quay.io/a/b:1"),
        ("quay.io/a/b", "quay.io/a/b:1"),
        ("https://index.docker.io/v1/", "localai/b:1"),
        ("docker.io", "oci://alpine"),
        ("127.0.0.1:5000", "oci://127.0.0.1:5000/b"),
    ],
)
def test_a_login_is_found_under_every_name_docker_gives_it(tmp_path: Path, key: str, uri: str) -> None:
    """G-2.6.3."""
    assert login(tmp_path, {"auths": {key: {"auth": AUTH}}}, uri) == ME


def test_a_repositorys_own_login_goes_before_its_registrys(tmp_path: Path) -> None:
    """G-2.6.3."""
    auths = {"quay.io": {"auth": AUTH}, "quay.io/a": {"username": "team", "password": "x"}}
    assert login(tmp_path, {"auths": auths}, "quay.io/a/b:1") == Login("team", "x")
    assert login(tmp_path, {"auths": auths}, "quay.io/c/b:1") == ME


def test_another_registrys_login_is_not_used(tmp_path: Path) -> None:
    assert login(tmp_path, {"auths": {"quay.io": {"auth": AUTH}}}, "evil-quay.io/b:1") == ANONYMOUS


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"auths": None},
        {"auths": {"quay.io": None}},
        {"auths": {"quay.io": {"auth": "%%%"}}},
        {"auths": {"quay.io": {"auth": base64.b64encode(b"nocolon").decode()}}},
        {"credsStore": "../../bin/sh"},
        {"credHelpers": {"quay.io": "not-installed"}},
    ],
)
def test_what_cannot_be_read_counts_as_absent(tmp_path: Path, config: dict[str, Any]) -> None:
    assert login(tmp_path, config, "quay.io/a/b:1") == ANONYMOUS


def test_a_file_that_is_no_json_counts_as_absent(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    assert DockerLogins({"DOCKER_CONFIG": str(tmp_path)}).of(ImageReference.parse("quay.io/b")) == ANONYMOUS


def test_podmans_file_is_read_where_docker_has_none(tmp_path: Path) -> None:
    """G-2.6.3."""
    (tmp_path / "containers").mkdir()
    auths = json.dumps({"auths": {"quay.io": {"auth": AUTH}}})
    (tmp_path / "containers/auth.json").write_text(auths)
    logins = DockerLogins({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)})
    assert logins.of(ImageReference.parse("quay.io/b")) == ME
    (tmp_path / "named.json").write_text(
        json.dumps({"auths": {"quay.io": {"username": "n", "password": "x"}}})
    )
    named = {**logins.environment, "REGISTRY_AUTH_FILE": str(tmp_path / "named.json")}
    assert DockerLogins(named).of(ImageReference.parse("quay.io/b")) == Login("n", "x")
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text("{}")
    assert logins.of(ImageReference.parse("quay.io/b")) == ANONYMOUS


@pytest.mark.parametrize("user", ["me", "<token>"])
def test_a_credential_helper_is_asked(tmp_path: Path, user: str) -> None:
    """G-2.6.3."""
    helper = tmp_path / "docker-credential-vault"
    answer = json.dumps({"ServerURL": "x", "Username": user, "Secret": "s3cret"})
    helper.write_text(f"#!/bin/sh\nread key; [ \"$1 $key\" = 'get quay.io' ] || exit 1\necho '{answer}'\n")
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credHelpers":{"quay.io":"vault"}}')
    environment = {"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    found = DockerLogins(environment).of(ImageReference.parse("quay.io/a/b:1"))
    assert found == (Login("me", "s3cret") if user == "me" else Login(identity_token="s3cret"))
    assert DockerLogins(environment).of(ImageReference.parse("ghcr.io/b")) == ANONYMOUS


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"',
            Challenge("bearer", "https://auth.docker.io/token", "registry.docker.io", "repository:a/b:pull"),
        ),
        ("bearer realm=https://r.invalid/t , service=s", Challenge("bearer", "https://r.invalid/t", "s")),
        ('Basic realm="x", charset="UTF-8"', Challenge("basic", "x")),
        ('Negotiate, Bearer realm="https://r.invalid/t"', Challenge("bearer", "https://r.invalid/t")),
        ("Negotiate", None),
        ("", None),
    ],
)
def test_challenges_are_understood_as_servers_write_them(header: str, expected: Challenge | None) -> None:
    assert Challenge.parse(header) == expected


def logged_in(top: Path, own: OwnRegistry) -> dict[str, str]:
    config = {"auths": {own.host: {"username": USER, "password": PASSWORD}}}
    (top / "config.json").write_text(json.dumps(config))
    return {"DOCKER_CONFIG": str(top)}


async def test_a_token_is_bought_anonymously_once_and_used_for_all(tmp_path: Path, into: Path) -> None:
    """G-2.6.3."""
    with own_registry(auth="bearer") as own:
        await registry_images(tmp_path).fetch(own.pushed.push(IMAGE), into)
        ((_, headers),) = own.gets("/token")
    assert "Authorization" not in headers
    assert (into / "run.sh").exists()


async def test_a_login_buys_the_token(tmp_path: Path, into: Path) -> None:
    with own_registry(auth="bearer") as own:
        await registry_images(tmp_path, logged_in(tmp_path, own)).fetch(own.pushed.push(IMAGE), into)
        ((_, headers),) = own.gets("/token")
    assert headers["Authorization"].startswith("Basic ")


async def test_an_identity_token_buys_the_token(tmp_path: Path, into: Path) -> None:
    bodies: list[bytes] = []

    def note(request: Request) -> bool:
        if request.command == "POST" and request.route == "/token":
            bodies.append(request.body)
        return False

    with own_registry(auth="bearer", faults=[note]) as own:
        (tmp_path / "config.json").write_text(json.dumps({"auths": {own.host: {"identitytoken": "id"}}}))
        await registry_images(tmp_path, {"DOCKER_CONFIG": str(tmp_path)}).fetch(own.pushed.push(IMAGE), into)
    assert b"grant_type=refresh_token&refresh_token=id" in bodies[0]


async def test_a_token_that_ran_out_is_bought_anew(tmp_path: Path, into: Path) -> None:
    with own_registry(auth="bearer") as own:
        uri = own.pushed.push(IMAGE)
        images = registry_images(tmp_path)
        await images.fetch(uri, into)
        own.token = "another-token"
        await images.describe(uri)
        assert len(own.gets("/token")) == 2


@pytest.mark.parametrize(("told_s", "lasts_s"), [(300, 290), (5, 50), (None, 50), (10**400, 3590)])
def test_a_token_is_used_until_shortly_before_its_end(told_s: int | None, lasts_s: int) -> None:
    """A minute where the server says less or nothing, by the distribution specification; an hour at most."""
    now_s = 1000.0

    def sell(request: Request) -> bool:
        request.answer(200, json.dumps({"token": "bought", "expires_in": told_s}).encode())
        return True

    with own_registry(faults=[sell]) as own:
        tokens = Tokens(WebClient({}), PATIENCE, now_s=lambda: now_s)
        challenge = Challenge("bearer", f"http://{own.host}/token")
        origin = f"http://{own.host}"
        tokens.obtain(Entry(challenge, origin, "a/b", ANONYMOUS, "oci://x/a/b", ""), Flight())
    now_s += lasts_s - 1
    assert tokens.kept(origin, "a/b") == "Bearer bought"
    assert tokens.kept(origin, "a/c") == ""
    now_s += 1
    assert tokens.kept(origin, "a/b") == ""


@pytest.mark.parametrize("paths", [True, False])
async def test_a_node_without_any_login_is_told_where_they_would_be(
    tmp_path: Path, into: Path, paths: bool
) -> None:
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/7"} if paths else {}
    with own_registry(auth="basic") as own:
        uri = own.pushed.push(IMAGE)
        with pytest.raises(ArtifactUnavailable) as caught:
            await registry_images(tmp_path, environment).fetch(uri, into)
    places = f"{tmp_path}/.docker/config.json, /run/user/7/containers/auth.json (no such file)"
    assert (places if paths else "HOME is not set") in str(caught.value)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_a_wrong_password_is_refused_with_the_remedy_and_not_shown(
    tmp_path: Path, into: Path, auth: str
) -> None:
    with own_registry(auth=auth) as own:
        config = {"auths": {own.host: {"username": USER, "password": "wr0ng-secret"}}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ArtifactUnavailable, match="docker login") as caught:
            await registry_images(tmp_path, {"DOCKER_CONFIG": str(tmp_path)}).fetch(
                own.pushed.push(IMAGE), into
            )
    assert "wr0ng-secret" not in str(caught.value)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_a_blob_store_elsewhere_gets_no_login(tmp_path: Path, into: Path, auth: str) -> None:
    """Redirects to a blob store: what the registry may know, another host may not."""
    with own_registry(auth=auth) as own, own_registry() as store:
        uri = own.pushed.push(IMAGE)
        store.pushed.push(IMAGE)

        def lead_away(request: Request) -> bool:
            if "/blobs/" in request.path and request.command == "GET" and own.admits(request):
                where = f"http://localhost:{store.port}{request.path}?signature=s3cret"
                request.answer(307, b"", {"Location": where})
            return "/blobs/" in request.path and request.command == "GET"

        own.faults.append(lead_away)
        await registry_images(tmp_path, logged_in(tmp_path, own)).fetch(uri, into)
        assert store.gets("/blobs/")
        assert not [headers for _, headers in store.gets("") if "Authorization" in headers]
    assert (into / "run.sh").exists()


async def test_a_blob_store_is_asked_directly_until_its_url_expires(tmp_path: Path, into: Path) -> None:
    big = Image([archives.tree_tar({"big": os.urandom(4 << 20)})])
    with own_registry() as own, own_registry() as store:
        uri = own.pushed.push(big)
        store.pushed.push(big)

        def lead_away(request: Request) -> bool:
            if "/blobs/" not in request.path or request.command != "GET":
                return False
            where = (
                f"http://localhost:{store.port}{request.path.replace('/v2/', '/v2/')}?n={len(own.requests)}"
            )
            request.answer(307, b"", {"Location": where})
            return True

        expired: list[str] = []

        def expire_once(request: Request) -> bool:
            if request.command == "GET" and len(store.gets("/blobs/")) == 3 and not expired:
                expired.append(request.path)
                request.answer(403, b"expired")
                return True
            return False

        own.faults.append(lead_away)
        store.faults.append(expire_once)
        await registry_images(tmp_path, connections=1).fetch(uri, into)
        assert expired
        assert 2 <= len(own.gets("/blobs/")) < len(store.gets("/blobs/"))
    assert (into / "big").stat().st_size == 4 << 20
