"""A registry as sites have it, with a certificate of their own and a login, and the command that installs."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests import archives
from tests.docker_registry import DockerRegistry, docker_registry
from tests.registry import PASSWORD, USER, Image
from tests.token_server import token_server

IMAGE = Image([gzip.compress(archives.tree_tar({"run.sh": b"#!/bin/sh\n"}))])


class Site:
    """A node that has a login for the registry, and knows the site's authority if `trusts` it."""

    def __init__(self, top: Path, registry: DockerRegistry, authority: trustme.CA) -> None:
        self.top, self.registry = top, registry
        self.uri = registry.push(IMAGE)
        self.authority = top / "authority.pem"
        authority.cert_pem.write_to_path(self.authority)
        login = {"auths": {registry.host: {"username": USER, "password": PASSWORD}}}
        (top / ".docker").mkdir()
        (top / ".docker/config.json").write_text(json.dumps(login))

    def install(self, *, trusts: bool) -> "subprocess.CompletedProcess[str]":
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.top),
            "LOCALAI_BACKENDS_PATH": str(self.top / "backends"),
            "LOCALAI_BACKENDS_SYSTEM_PATH": str(self.top / "system"),
            **({"SSL_CERT_FILE": str(self.authority)} if trusts else {}),
        }
        command = [sys.executable, "-m", "localai_worker", "backends", "install", "tool", "--uri", self.uri]
        return subprocess.run(
            command, env=environment, cwd=self.top, capture_output=True, text=True, timeout=60, check=False
        )

    @property
    def is_installed(self) -> bool:
        return (self.top / "backends/tool/run.sh").exists()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def test_an_authority_of_the_sites_own_is_trusted_by_the_usual_variable(
    tmp_path: Path, authority: trustme.CA
) -> None:
    """G-2.6.3, G-2.6.4: and the login is found where docker leaves it."""
    certificate = authority.issue_cert("127.0.0.1")
    with docker_registry(tmp_path, is_guarded=True, certificate=certificate) as registry:
        site = Site(tmp_path, registry, authority)
        refused = site.install(trusts=False)
        assert refused.returncode == 1
        assert "certificate" in refused.stderr
        assert not site.is_installed
        taken = site.install(trusts=True)
        assert taken.returncode == 0, taken.stderr
        assert site.is_installed


def test_a_login_is_not_sent_in_clear_because_a_registry_says_so(
    tmp_path: Path, authority: trustme.CA
) -> None:
    """G-2.6.3: its token server speaks no TLS."""
    certificate = authority.issue_cert("127.0.0.1")
    with (
        token_server(USER, PASSWORD, "") as tokens,
        docker_registry(tmp_path, tokens=tokens, certificate=certificate) as registry,
    ):
        site = Site(tmp_path, registry, authority)
        refused = site.install(trusts=True)
        assert refused.returncode == 1
        assert f"wants the login sent in clear to {tokens.realm}; refused" in refused.stderr
        assert tokens.purchases == []
