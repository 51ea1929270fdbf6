"""Registries for tests: how to push to any, one of our own that can misbehave, and images."""

import base64
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from localai_worker.adapters.artifacts.blobs.fetch import BlobFetcher
from localai_worker.adapters.artifacts.blobs.store import BlobStore
from localai_worker.adapters.artifacts.registry.client import RegistryClient
from localai_worker.adapters.artifacts.registry.credentials import DockerLogins
from localai_worker.adapters.artifacts.registry.images import RegistryImages
from localai_worker.adapters.artifacts.web.client import WebClient
from localai_worker.adapters.artifacts.web.patience import Patience
from tests import archives
from tests.archives import INDEX, MANIFEST, digest_of, to_json

PART_BYTES = 1 << 20
PATIENCE = Patience(attempts=3, first_wait_s=0.01, longest_wait_s=5)
USER, PASSWORD = "worker", "p@ss word"


def blob_fetcher(
    top: Path, *, stall_s: float = 30.0, connections: int = 8, floor_bytes: int = 0
) -> BlobFetcher:
    """Blobs in `top`, parts of 1 MiB, and little patience."""
    store = BlobStore(top / "blobs", part_bytes_for=lambda _: PART_BYTES)
    return BlobFetcher(store, PATIENCE, stall_s, floor_bytes, connections)


def registry_images(
    top: Path,
    environment: Mapping[str, str] | None = None,
    *,
    stall_s: float = 30.0,
    connections: int = 8,
    floor_bytes: int = 0,
    **options: Any,
) -> RegistryImages:
    """What a worker reads images with."""
    web = WebClient(environment or {}, stall_s=stall_s)
    client = RegistryClient(web, DockerLogins(environment or {}), PATIENCE)
    fetcher = blob_fetcher(top, stall_s=stall_s, connections=connections, floor_bytes=floor_bytes)
    return RegistryImages(client, fetcher, **{"platform": "linux/amd64", **options})


@dataclass
class Image:
    """An image to push: its layers as they are stored, lowest first."""

    layers: Sequence[bytes]
    media_type: str = archives.GZIP_LAYER
    fields: Mapping[str, Any] = field(default_factory=dict)  # of the manifest, in addition
    diff_ids: Sequence[str] = ()  # which only other tools look at

    @property
    def blobs(self) -> list[bytes]:
        rootfs = {"type": "layers", "diff_ids": self.diff_ids}
        return [to_json({"os": "linux", "architecture": "amd64", "rootfs": rootfs}), *self.layers]

    @property
    def manifest(self) -> bytes:
        config, *layers = self.blobs
        return to_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": archives.descriptor(config, "application/vnd.oci.image.config.v1+json"),
                "layers": [archives.descriptor(layer, self.media_type) for layer in layers],
                **self.fields,
            }
        )

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


EMPTY = b"{}"  # the config of what is no image


def attached_manifest(image: Image, artifact_type: str, content: bytes) -> bytes:
    return to_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": archives.descriptor(EMPTY, "application/vnd.oci.empty.v1+json"),
            "layers": [archives.descriptor(content, artifact_type)],
            "subject": archives.descriptor(image.manifest, MANIFEST),
        }
    )


@dataclass
class Registry:
    """Where a registry listens, and how to push to it."""

    host: str
    headers: Mapping[str, str] = field(default_factory=dict)
    scheme: str = "http"

    def uri(self, tag: str, name: str = "team/backend") -> str:
        return f"oci://{self.host}/{name}:{tag}"

    def push(self, image: Image, tag: str = "1", name: str = "team/backend") -> str:
        """Push the image as `tag`; its uri."""
        with self._client(name) as client:
            for blob in image.blobs:
                self._push_blob(client, blob)
            self._push_manifest(client, tag, image.manifest, MANIFEST)
        return self.uri(tag, name)

    def push_index(
        self, images: Mapping[str, Image], tag: str = "1", name: str = "team/backend", nested: int = 0
    ) -> str:
        """Push an index of images by platform (`linux/arm64`), each by its digest too."""
        entries = []
        with self._client(name) as client:
            for platform, image in images.items():
                self.push(image, image.digest, name)
                os_name, _, architecture = platform.partition("/")
                about = {"platform": {"os": os_name, "architecture": architecture}} if platform else {}
                entries.append(archives.descriptor(image.manifest, MANIFEST, **about))
            content = to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
            for _ in range(nested):
                self._push_manifest(client, digest_of(content), content, INDEX)
                about = {"platform": {"os": "linux", "architecture": "amd64"}}
                entry = archives.descriptor(content, INDEX, **about)
                content = to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
            self._push_manifest(client, tag, content, INDEX)
        return self.uri(tag, name)

    def attach(self, image: Image, artifact_type: str, content: bytes, *, name: str = "team/backend") -> None:
        """Attach something to a pushed image by a tag, as clients do where there is no referrers API."""
        manifest = attached_manifest(image, artifact_type, content)
        tag = image.digest.replace(":", "-")
        with self._client(name) as client:
            for blob in (EMPTY, content):
                self._push_blob(client, blob)
            self._push_manifest(client, digest_of(manifest), manifest, MANIFEST)
            found = client.get(f"manifests/{tag}", headers={"Accept": INDEX})
            entries = found.json()["manifests"] if found.status_code == 200 else []
            entries.append(archives.descriptor(manifest, MANIFEST, artifactType=artifact_type))
            index = to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
            self._push_manifest(client, tag, index, INDEX)

    @contextmanager
    def _client(self, name: str) -> Iterator[httpx.Client]:
        base = f"{self.scheme}://{self.host}/v2/{name}/"
        options: dict[str, Any] = {"trust_env": False, "verify": False, "timeout": 60}
        with httpx.Client(base_url=base, headers=self.headers, **options) as client:
            yield client

    def _push_blob(self, client: httpx.Client, blob: bytes) -> None:
        digest = digest_of(blob)
        if client.head(f"blobs/{digest}").status_code == 200:
            return
        where = client.post("blobs/uploads/").raise_for_status().headers["location"]
        joint = "&" if "?" in where else "?"
        client.put(f"{where}{joint}digest={digest}", content=blob).raise_for_status()

    def _push_manifest(self, client: httpx.Client, version: str, content: bytes, media_type: str) -> None:
        put = client.put(f"manifests/{version}", content=content, headers={"Content-Type": media_type})
        put.raise_for_status()


Handler = Callable[["Request"], bool]


class Request(BaseHTTPRequestHandler):
    """One request to the registry of our own; `serve` is what an honest one does."""

    protocol_version = "HTTP/1.1"
    registry: "OwnRegistry"

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed."""

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        self.route, self.query = url.path, parse_qs(url.query)
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        with self.registry.lock:
            self.registry.requests.append((self.command, self.route, dict(self.headers)))
        for misbehave in list(self.registry.faults):
            if misbehave(self):
                return
        self.serve()

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 - names of the base class

    def serve(self) -> None:
        if not self.registry.admits(self):
            return
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs|referrers)/(.*)", self.route)
        if self.route == "/v2/":
            self.answer(200, b"{}")
        elif self.route in self.registry.files:
            content = self.registry.files[self.route]
            version = {"ETag": f'"{digest_of(content)}"'} if self.registry.has_versions else {}
            self.send_content(content, version)
        elif found is None:
            self.answer(404, b"")
        elif self.command == "POST":
            self.answer(202, b"", {"Location": f"http://{self.registry.host}/v2/{found[1]}/blobs/uploads/1"})
        elif self.command == "PUT":
            self._keep(found)
        elif found[2] == "referrers":
            self._list_referrers(found[1], found[3])
        else:
            self._send_stored(found)

    def answer(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _keep(self, found: re.Match[str]) -> None:
        digest = digest_of(self.body)
        if found[2] == "blobs":
            if self.query["digest"] != [digest]:
                return self.answer(400, b"")
            self.registry.stored[found[1], "blobs", digest] = (self.body, "application/octet-stream")
        else:
            for version in {digest, found[3]}:
                kind = self.headers["Content-Type"]
                self.registry.stored[found[1], "manifests", version] = (self.body, kind)
        return self.answer(201, b"", {"Docker-Content-Digest": digest, "Location": self.route})

    def _list_referrers(self, name: str, digest: str) -> None:
        if not self.registry.has_referrers:
            return self.answer(404, b"")
        entries = self.registry.attached.get((name, digest), [])
        content = to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        return self.answer(200, content, {"Content-Type": INDEX})

    def _send_stored(self, found: re.Match[str]) -> None:
        stored = self.registry.stored.get((found[1], found[2], found[3]))
        if stored is None:
            code = "MANIFEST_UNKNOWN" if found[2] == "manifests" else "BLOB_UNKNOWN"
            error = {"errors": [{"code": code, "message": "unknown"}]}
            return self.answer(404, to_json(error), {"Content-Type": "application/json"})
        content, kind = stored
        headers = {"Content-Type": kind, "Docker-Content-Digest": digest_of(content)}
        self.send_content(content, headers)
        return None

    def send_content(self, content: bytes, headers: Mapping[str, str]) -> None:
        """The content, or the range of it that was asked for, at the registry's speed."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        status, first, last = 200, 0, len(content) - 1
        if asked and self.registry.knows_ranges:
            first, last = int(asked[1]), min(int(asked[2] or last), last)
            if first > last:
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            status = 206
            headers = {**headers, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
        self.send_response(status)
        length = (
            {"Content-Length": str(last - first + 1)}
            if self.registry.tells_sizes
            else {"Connection": "close"}
        )
        for name, value in {**length, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.send_slowly(memoryview(content)[first : last + 1])
        return None

    def send_slowly(self, content: memoryview) -> None:
        step, rate = 1 << 16, self.registry.bytes_per_s
        started_s = time.monotonic()
        for at in range(0, len(content), step):
            self.wfile.write(content[at : at + step])
            with self.registry.lock:
                self.registry.sent_bytes += len(content[at : at + step])
            if rate:
                time.sleep(max(0.0, started_s + (at + step) / rate - time.monotonic()))

    def send_cut(self, content: bytes, keep: int, headers: Mapping[str, str] | None = None) -> bool:
        """Announce all of `content`, send the first `keep` bytes and hang up."""
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[:keep])
        self.wfile.flush()
        self.close_connection = True
        return True


@dataclass
class OwnRegistry:
    """A registry in this process. Each of `faults` sees a request first and may answer it: True then."""

    port: int = 0
    auth: str = ""  # "basic", "bearer", or nobody is asked
    token: str = "a-token-for-pull"
    sells_to_anybody: bool = True  # that token
    knows_ranges: bool = True
    has_referrers: bool = True
    has_versions: bool = True  # ETags of `files`
    tells_sizes: bool = True
    bytes_per_s: float = 0.0  # of each connection; 0 is as fast as it goes
    faults: list[Handler] = field(default_factory=list)
    stored: dict[tuple[str, str, str], tuple[bytes, str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)  # by path, outside of the registry's API
    attached: dict[tuple[str, str], list[Mapping[str, Any]]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    sent_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        handler = type("Handler", (Request,), {"registry": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pushed(self) -> Registry:
        """How to push to it."""
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        login = {"basic": f"Basic {basic}", "bearer": f"Bearer {self.token}"}
        return Registry(self.host, {"Authorization": login[self.auth]} if self.auth else {})

    def admits(self, request: Request) -> bool:
        """Whether the request may go on; it is answered where not."""
        if request.route == "/token":
            wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            told = request.headers.get("Authorization", "")
            allowed = {f"Basic {wanted}", "" if self.sells_to_anybody else None}
            if request.command == "GET" and told not in allowed:
                request.answer(401, b"")
            else:
                request.answer(200, to_json({"token": self.token, "expires_in": 300}))
            return False
        if not self.auth:
            return True
        if request.headers.get("Authorization") == self.pushed.headers["Authorization"]:
            return True
        realm = f'Bearer realm="http://{self.host}/token",service="own",scope="repository:team/backend:pull"'
        challenge = 'Basic realm="own"' if self.auth == "basic" else realm
        request.answer(401, b'{"errors":[]}', {"WWW-Authenticate": challenge})
        return False

    def gets(self, part: str) -> list[tuple[str, dict[str, str]]]:
        """The paths and headers of all GET requests whose path has `part`."""
        with self.lock:
            return [
                (path, headers) for verb, path, headers in self.requests if verb == "GET" and part in path
            ]

    def attach(self, image: Image, artifact_type: str, content: bytes, *, name: str = "team/backend") -> None:
        """Attach something to a pushed image, through the referrers API or by the tag that stands in."""
        if not self.has_referrers:
            self.pushed.attach(image, artifact_type, content, name=name)
            return
        manifest = attached_manifest(image, artifact_type, content)
        self.stored[name, "blobs", digest_of(content)] = (content, artifact_type)
        self.stored[name, "manifests", digest_of(manifest)] = (manifest, MANIFEST)
        entries = self.attached.setdefault((name, image.digest), [])
        entries.append(archives.descriptor(manifest, MANIFEST, artifactType=artifact_type))

    def close(self) -> None:
        """Nobody listens any more; idempotent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def own_registry(**options: Any) -> Iterator[OwnRegistry]:
    """A registry of our own for the block."""
    registry = OwnRegistry(**options)
    try:
        yield registry
    finally:
        registry.close()
