"""An OCI registry whose layers come at a fixed rate, in a process of its own.

    python -m benchmarks.slow_registry PORT BYTES_PER_SECOND LAYER_BYTES

Any repository has the tag `1`: an image of one uncompressed layer with a run.sh and padding.
"""

import hashlib
import io
import json
import sys
import tarfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_CHUNK = 32 * 1024
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def _layer(size: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in (("run.sh", b"#!/bin/sh\nexit 1\n"), ("padding", bytes(size))):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def serve(port: int, rate: int, size: int) -> None:
    """Serve until killed; says `up` once it listens."""
    layer = _layer(size)
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest]}}
    ).encode()
    config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": len(config),
            },
            "layers": [
                {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": len(layer)}
            ],
        }
    ).encode()

    class Registry(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if "/manifests/" in self.path:
                self._answer(manifest, _MANIFEST, f"sha256:{hashlib.sha256(manifest).hexdigest()}")
            elif self.path.endswith(config_digest):
                self._answer(config, "application/json", config_digest)
            elif self.path.endswith(digest):
                self._answer(layer, "application/octet-stream", digest, slowly=True)
            else:
                self._answer(b"{}", "application/json", "")

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

        def _answer(self, body: bytes, kind: str, of: str, *, slowly: bool = False) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", of)
            self.end_headers()
            if self.command == "HEAD":
                return
            began_s = time.monotonic()
            for start in range(0, len(body), _CHUNK):
                self.wfile.write(body[start : start + _CHUNK])
                if slowly:
                    time.sleep(max(0.0, began_s + (start + _CHUNK) / rate - time.monotonic()))

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients may leave."""

    server = Server(("127.0.0.1", port), Registry)
    print("up", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
