"""Debian's docker-registry for tests: open, with a basic login, or with a token server in front."""

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.registry import PASSWORD, USER, Registry
from tests.servers import START_S, find_executable, free_port
from tests.token_server import ISSUER, SERVICE, TokenServer

_BCRYPT = "$2b$05$abcdefghijklmnopqrstuur5aDg7GxN23iZ505akLxKtQOeDz5Wl6"  # of PASSWORD


class DockerRegistry(Registry):
    """Debian's docker-registry with its data in `directory`; it can be stopped and started on its port.

    With `tokens` it takes what that server sells, with `is_guarded` a basic login. `bundle` is the file of
    the certificate that tokens are verified with. With a `certificate` it speaks TLS.
    """

    def __init__(
        self,
        directory: Path,
        *,
        is_guarded: bool = False,
        tokens: TokenServer | None = None,
        certificate: trustme.LeafCert | None = None,
    ) -> None:
        self._program = find_executable("docker-registry")
        self._port = free_port()
        self._directory = directory
        self.bundle = directory / "tokens.pem"
        super().__init__(f"127.0.0.1:{self._port}")
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(directory / "registry")}},
            "http": {"addr": self.host},
        }
        if certificate is not None:
            self.scheme, pem = "https", directory / "tls.pem"
            certificate.private_key_and_cert_chain_pem.write_to_path(pem)
            config["http"]["tls"] = {"certificate": str(pem), "key": str(pem)}
        if is_guarded:
            (directory / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(directory / "htpasswd")}}
            basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            self.headers = {"Authorization": f"Basic {basic}"}
        if tokens is not None:
            tokens.write_certificate(self.bundle)
            names = {"realm": tokens.realm, "service": SERVICE, "issuer": ISSUER}
            config["auth"] = {"token": {**names, "rootcertbundle": str(self.bundle)}}
            access = {"type": "repository", "name": "team/backend", "actions": ["pull", "push"]}
            self.headers = {"Authorization": f"Bearer {tokens.token([access])}"}
        (directory / "registry.yml").write_text(json.dumps(config))  # JSON is YAML

    def start(self) -> None:
        """Run it and wait until it listens."""
        log = self._directory / "registry.log"
        command = [self._program, "serve", str(self._directory / "registry.yml")]
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        deadline_s = time.monotonic() + START_S
        while True:
            try:
                httpx.get(f"{self.scheme}://{self.host}/v2/", trust_env=False, verify=False)
                break
            except httpx.TransportError:
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    pytest.fail(f"docker-registry does not listen:\n{log.read_text()}")
                time.sleep(0.02)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(START_S)


@contextmanager
def docker_registry(directory: Path, **options: Any) -> Iterator[DockerRegistry]:
    """A `DockerRegistry` for the block; skips where the program is not installed."""
    registry = DockerRegistry(directory, **options)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()
