"""Signed images, the whole way: a registry, a Sigstore of the tests' own, and the command that installs."""

import gzip
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from localai_worker.app.cli import app
from localai_worker.app.option_table import OPTIONS
from localai_worker.domain.ports.artifacts import OLD_SIGNATURE
from tests import archives
from tests.docker_registry import docker_registry
from tests.keyless import Keyless
from tests.registry import Image, Registry, own_registry

IMAGE = Image([gzip.compress(archives.tree_tar({"run.sh": b"#!/bin/sh\n"}))])
OTHER = Image([gzip.compress(archives.tree_tar({"run.sh": b"#!/bin/sh\necho other\n"}))])
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
REPOSITORY = "https://github.com/example/repo/"
POLICY = {
    "issuer": "https://token.actions.githubusercontent.com",
    "identity_regex": "^https://github\\.com/example/repo/",
    "not_before": "2026-05-01T00:00:00Z",
}


@dataclass
class Place:
    """A registry: how to push to it, and how to attach something to what was pushed."""

    pushed: Registry
    attach: Callable[[Image, str, bytes], None]


@pytest.fixture(params=["referrers API", "referrers tag", "docker-registry"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "docker-registry":
        with docker_registry(tmp_path) as real:
            yield Place(real, real.attach)
    else:
        with own_registry(has_referrers=request.param == "referrers API") as own:
            yield Place(own.pushed, own.attach)


class Node:
    """A node whose gallery wants signatures."""

    def __init__(self, top: Path, registry: Place) -> None:
        self.registry = registry
        self.sigstore = Keyless()
        self.backends = top / "backends"
        self.backends.mkdir()
        index = self.backends / "index.yaml"
        index.write_text(f"- name: tool\n  uri: {registry.pushed.push(IMAGE)}\n")
        gallery = {"name": "site", "url": f"file://{index}", "verification": POLICY}
        self.environment = {
            "HOME": str(top),
            "LOCALAI_BACKENDS_PATH": str(self.backends),
            "LOCALAI_BACKENDS_SYSTEM_PATH": str(top / "system"),
            "LOCALAI_MODELS_PATH": str(top / "models"),
            "LOCALAI_BACKEND_GALLERIES": json.dumps([gallery]),
            "LOCALAI_REQUIRE_BACKEND_INTEGRITY": "true",
            "LOCALAI_WORKER_SIGSTORE_ROOT": str(self.sigstore.write_trusted_root(top / "root.json")),
        }

    def sign(self, identity: str = f"{REPOSITORY}build.yaml", by: Keyless | None = None) -> None:
        bundle = (by or self.sigstore).bundle(IMAGE.digest, identity=identity)
        self.registry.attach(IMAGE, BUNDLE, json.dumps(bundle).encode())

    def install(self) -> Result:
        return CliRunner().invoke(app, ["backends", "install", "tool"], env=self.environment)


@pytest.fixture
def node(tmp_path: Path, registry: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    for option in OPTIONS:
        for name in option.env:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield Node(tmp_path, registry)
    root.handlers[:] = before
    root.setLevel(level)


def test_a_signed_image_is_installed(node: Node) -> None:
    """G-2.7.1, G-2.7.3, G-2.7.4."""
    node.sign()
    result = node.install()
    assert result.exit_code == 0, result.output
    assert (node.backends / "tool/run.sh").exists()
    layer = archives.digest_of(IMAGE.layers[0]).removeprefix("sha256:")
    assert list(node.backends.rglob(f"{layer}*"))  # where the refused ones would be


def test_a_good_signature_behind_others_counts(node: Node) -> None:
    """G-W28."""
    node.registry.attach(IMAGE, BUNDLE, b"{}")
    node.sign(by=Keyless())
    node.sign("https://github.com/somebody/else")
    node.sign()
    assert node.install().exit_code == 0


@pytest.mark.parametrize(
    "signed",
    ["not at all", "by somebody else", "with another trust root", "another image", "in the old form"],
)
def test_any_other_image_is_refused_and_no_layer_of_it_is_fetched(node: Node, signed: str) -> None:
    """G-2.7.3, G-2.7.7."""
    if signed == "by somebody else":
        node.sign("https://github.com/somebody/else")
    elif signed == "with another trust root":
        node.sign(by=Keyless())
    elif signed == "another image":
        other = json.dumps(node.sigstore.bundle(OTHER.digest, identity=f"{REPOSITORY}build.yaml")).encode()
        node.registry.attach(IMAGE, BUNDLE, other)
    elif signed == "in the old form":
        node.registry.pushed.push(Image([b"{}"], OLD_SIGNATURE), f"{IMAGE.digest.replace(':', '-')}.sig")
    result = node.install()
    assert result.exit_code == 1
    assert "image verification failed for" in result.stderr
    assert not (node.backends / "tool").exists()
    assert ("--new-bundle-format" in result.stderr) == (signed == "in the old form")
    layer = archives.digest_of(IMAGE.layers[0]).removeprefix("sha256:")
    assert list(node.backends.rglob(f"{layer}*")) == []
