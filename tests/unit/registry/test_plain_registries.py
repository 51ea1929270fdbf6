"""Which registries may be asked without TLS, and that TLS is tried first."""

import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import trustme

from localai_worker.adapters.artifacts.registry.plain_hosts import may_be_plain
from localai_worker.domain.errors import ArtifactUnavailable
from tests import archives
from tests.registry import Image, OwnRegistry, registry_images

IMAGE = Image([archives.tree_tar({"run.sh": b"#!/bin/sh\n"})])


@pytest.mark.parametrize(
    "host",
    [
        "localhost:5000",
        "127.0.0.1",
        "127.0.0.1:5000",
        "[::1]:5000",
        "registry.local",
        "registry.localhost:5000",
        "10.1.2.3:5000",
        "172.16.0.1",
        "172.31.255.255:80",
        "192.168.1.1:5000",
    ],
)
def test_this_machine_and_private_networks_may_be_plain(host: str) -> None:
    """G-2.6.4."""
    assert may_be_plain(host)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "quay.io",
        "localhost.example.com:5000",
        "127.0.0.1.example.com",
        "registry.local.example.com",
        "172.32.0.1:5000",
        "192.169.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "8.8.8.8:5000",
        "[fd00::1]:5000",
        "[::ffff:10.0.0.1]:5000",
    ],
)
def test_all_others_are_asked_by_tls_only(host: str) -> None:
    """G-2.6.4."""
    assert not may_be_plain(host)


async def test_a_plain_registry_on_this_machine_needs_no_switch(
    own: OwnRegistry, tmp_path: Path, into: Path
) -> None:
    """G-2.6.4: https is tried once; from then on it is known."""
    images = registry_images(tmp_path)
    await images.fetch(own.pushed.push(IMAGE), into)
    await images.describe(own.pushed.uri("1"))
    assert [path for path, _ in own.gets("/v2/")].count("/v2/") == 1


@pytest.fixture
def tls_port() -> Iterator[tuple[int, list[str]]]:
    """A server with a certificate that nobody knows, and what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.server_address[1], asked
    server.shutdown()
    server.server_close()
    thread.join(10)


async def test_a_registry_with_an_unknown_certificate_is_not_asked_in_clear(
    tls_port: tuple[int, list[str]], tmp_path: Path, into: Path
) -> None:
    """G-2.6.4: whoever speaks TLS must show a certificate that we trust; there is no insecure switch."""
    port, asked = tls_port
    with pytest.raises(ArtifactUnavailable, match="certificate") as caught:
        await registry_images(tmp_path).fetch(f"oci://127.0.0.1:{port}/team/backend:1", into)
    assert "https://" in str(caught.value)
    assert asked == []
