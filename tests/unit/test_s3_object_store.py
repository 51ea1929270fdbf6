"""S3 with its troubles: cuts, stalls, lies, refusals whose text names the setting to look at."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

import anyio
import pytest

from localai_worker.adapters.filesystem.ranged_files import LocalRangedFiles
from localai_worker.adapters.s3 import download, plain, upload
from localai_worker.adapters.s3.client import Bucket, LazyClient, is_loopback
from localai_worker.adapters.s3.lazy import LazyS3ObjectStore
from localai_worker.adapters.s3.left_parts import LeftParts
from localai_worker.adapters.s3.object_store import S3ObjectStore
from localai_worker.adapters.s3.stream import info_of
from localai_worker.domain.errors import WorkerError
from localai_worker.domain.ports.filesystem import RootedPath
from localai_worker.domain.ports.object_store import ObjectInfo, StagingKey
from localai_worker.domain.store_errors import ObjectInvalid, StoreRefused, StoreUnavailable
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server
from tests.servers import free_port

MIB = 1024 * 1024
FILES = LocalRangedFiles()
CONTENT = random.Random(1).randbytes(6 * MIB)


def store_at(
    url: str,
    *,
    bucket: str = BUCKET,
    access_key: str = ACCESS_KEY,
    secret_key: str = SECRET_KEY,
    read_s: float = 30.0,
) -> S3ObjectStore:
    return S3ObjectStore(Bucket(url, bucket, "us-east-1", access_key, secret_key, connect_s=2, read_s=read_s))


@pytest.fixture
async def key(rclone_s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> StagingKey:
    """An object of 6 MiB."""
    directory = tmp_path_factory.mktemp("source")
    (directory / "source").write_bytes(CONTENT)
    source = await FILES.open_source(RootedPath(directory, PurePosixPath("source")))
    assert source is not None
    key = StagingKey(f"faults/{random.getrandbits(48):x}")
    store = store_at(rclone_s3.url)
    await store.put(key, source)
    await source.close()
    await store.close()
    return key


@pytest.fixture
def proxy(rclone_s3: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(rclone_s3.port) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FIRST_PAUSE_S", 0.001)


async def fetched(store: S3ObjectStore, key: StagingKey, directory: Path) -> bytes:
    info = await store.head(key)
    target = await FILES.assemble(
        RootedPath(directory, PurePosixPath("target")), version=info.version, size_bytes=info.size_bytes
    )
    try:
        stored = await store.open(key, info)
        try:
            await stored.copy_to(target)
        finally:
            await stored.close()
        await target.publish()
        await target.settle()
    finally:
        await target.discard()
        await store.close()
    return (directory / "target").read_bytes()


async def test_a_connection_cut_again_and_again_is_gone_on_with(
    proxy: FaultyProxy, key: StagingKey, tmp_path: Path
) -> None:
    proxy.cuts.extend([10_000, MIB, 300_000, 2 * MIB, 5_000])
    assert await fetched(store_at(proxy.url), key, tmp_path) == CONTENT
    asked = b"".join(proxy.requests)
    assert asked.lower().count(b"range: bytes=") >= 4


async def test_a_store_that_never_gets_further_is_given_up(
    proxy: FaultyProxy, key: StagingKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localai_worker.adapters.s3.client.ATTEMPTS", 1)
    proxy.cuts.extend([MIB, *[100] * 200])  # within the headers
    with pytest.raises(StoreUnavailable, match=r"getting object "):
        await fetched(store_at(proxy.url), key, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == []


async def test_an_answer_longer_or_shorter_than_it_says_does_no_harm(
    proxy: FaultyProxy, key: StagingKey, tmp_path: Path
) -> None:
    length = len(CONTENT)
    store = store_at(proxy.url)
    info = await store.head(key)
    proxy.replace = (f"Content-Length: {length}".encode(), f"Content-Length: {length - 70_000}".encode())
    stored = await store.open(key, info)
    target = await FILES.assemble(
        RootedPath(tmp_path, PurePosixPath("target")), version=info.version, size_bytes=info.size_bytes
    )
    await stored.copy_to(target)
    await target.publish()
    await target.settle()
    await stored.close()
    await store.close()
    assert (tmp_path / "target").read_bytes() == CONTENT


async def test_a_range_of_another_object_is_not_taken(
    proxy: FaultyProxy, key: StagingKey, tmp_path: Path
) -> None:
    proxy.replace = (f"/{len(CONTENT)}\r\n".encode(), f"/{len(CONTENT) + 1}\r\n".encode())
    with pytest.raises(ObjectInvalid, match="under one ETag"):
        await fetched(store_at(proxy.url), key, tmp_path)


async def test_a_store_that_ignores_ranges_is_told_apart(
    proxy: FaultyProxy, key: StagingKey, tmp_path: Path
) -> None:
    store = store_at(proxy.url)
    info = await store.head(key)
    proxy.replace = (b"Content-Range:", b"Content-Rage: ")
    target = await FILES.assemble(
        RootedPath(tmp_path, PurePosixPath("target")), version=info.version, size_bytes=info.size_bytes
    )
    target.write_at(0, memoryview(CONTENT)[:MIB])
    with pytest.raises(ObjectInvalid, match=r"under one ETag|ignores Range"):
        await (await store.open(key, info)).copy_to(target)
    await target.discard()
    await store.close()


async def test_a_silent_store_holds_up_no_cancellation(
    proxy: FaultyProxy, key: StagingKey, tmp_path: Path
) -> None:
    store = store_at(proxy.url)
    info = await store.head(key)
    proxy.stalls.extend([MIB] * 50)
    await store.close()  # the connection that works
    store = store_at(proxy.url)
    target = await FILES.assemble(
        RootedPath(tmp_path, PurePosixPath("target")), version=info.version, size_bytes=info.size_bytes
    )
    stored = await store.open(key, info)
    with anyio.fail_after(20):  # less than the 30 s after which the read would give up by itself
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stored.copy_to, target)
            await anyio.to_thread.run_sync(proxy.stalled.wait, 10)
            tasks.cancel_scope.cancel()
    await stored.close()
    await target.discard()
    await store.close()


async def test_a_store_that_answers_too_slowly_is_given_up(
    proxy: FaultyProxy, key: StagingKey, tmp_path: Path
) -> None:
    proxy.stalls.extend([0] * 50)
    store = store_at(proxy.url, read_s=0.05)
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await store.head(key)
    await store.close()


@pytest.mark.parametrize("server", ["rclone_s3", "seaweed_s3"])
@pytest.mark.parametrize(
    ("wrong", "setting"),
    [
        ({"bucket": "no-such-bucket"}, "LOCALAI_STORAGE_BUCKET"),
        ({"access_key": "UNKNOWNKEY"}, "LOCALAI_STORAGE_ACCESS_KEY"),
        ({"secret_key": "wrong-secret-key"}, "LOCALAI_STORAGE_SECRET_KEY"),
        ({"bucket": "No Such/Bucket"}, "LOCALAI_STORAGE_BUCKET"),
    ],
)
async def test_what_is_refused_names_the_setting_to_look_at(
    request: pytest.FixtureRequest, server: str, wrong: dict[str, str], setting: str
) -> None:
    s3: S3Server = request.getfixturevalue(server)
    store = store_at(s3.url, **wrong)  # type: ignore[arg-type]
    for ask in (store.check, lambda: store.head(StagingKey("x")), lambda: store.open(StagingKey("x"))):
        with pytest.raises(StoreRefused, match=setting) as caught:
            await ask()
        assert SECRET_KEY not in str(caught.value)
        assert "wrong-secret-key" not in str(caught.value)
    await store.close()


async def test_nobody_there_names_the_setting_to_look_at() -> None:
    store = store_at(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable, match=r"cannot be reached.* check LOCALAI_STORAGE_URL"):
        await store.check()
    await store.close()


async def test_without_credentials_the_text_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    store = store_at("http://127.0.0.1:1", access_key="", secret_key="half")
    with pytest.raises(StoreRefused, match="set LOCALAI_STORAGE_ACCESS_KEY and LOCALAI_STORAGE_SECRET_KEY"):
        await store.check()
    await store.close()


@pytest.mark.parametrize("server", ["rclone_s3", "seaweed_s3"])
async def test_a_plain_request_tells_what_the_client_would(
    request: pytest.FixtureRequest, server: str
) -> None:
    """One round trip past the client's machinery; the version of an object must not depend on the way."""
    s3: S3Server = request.getfixturevalue(server)
    store = store_at(s3.url)
    client = store._client.get()
    name = f"plain/{random.getrandbits(48):x}"
    bodies = {f"{name} späte+größe%20": b"one", f"{name}/empty": b"", f"{name}/named": b"three"}
    for key, body in bodies.items():
        client.put_object(Bucket=BUCKET, Key=key, Body=body, Metadata={"sha256": "AB" * 32})
    told = {key: info_of(client.head_object(Bucket=BUCKET, Key=key)) for key in bodies}
    calls: list[str] = []
    client.meta.events.register("before-send.s3", lambda request, **_: calls.append(request.method))
    for key, body in bodies.items():
        assert await store.head(StagingKey(key)) == told[key]
        stored = await store.open(StagingKey(key))
        assert (stored.info, stored.whole) == (told[key], body)
        await stored.close()
    assert calls == []
    await store.close()


async def test_a_store_that_takes_no_plain_requests_is_asked_by_the_client_alone() -> None:
    asked: list[bool] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            asked.append("amz-sdk-request" not in self.headers)
            self.send_response(403 if asked[-1] else 200)
            self.send_header("Content-Length", "3")
            self.send_header("ETag", '"etag"')
            self.send_header("Last-Modified", "Fri, 27 Nov 2026 14:31:49 GMT")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Says nothing."""

    with serving(Handler) as url:
        store = store_at(url)
        for _ in range(5):
            assert (await store.head(StagingKey("key"))).size_bytes == 3
        await store.close()
    assert asked == [True, False] * 3 + [False] * 2  # whether each was a plain one


@pytest.mark.parametrize(
    "odd",
    [{"Last-Modified": "yesterday"}, {"Last-Modified": None}, {"ETag": None}, {"Content-Length": "-1"}],
)
def test_headers_that_are_not_plain_are_left_to_the_client(odd: dict[str, str | None]) -> None:
    headers = {"Content-Length": "3", "ETag": '"e"', "Last-Modified": "Fri, 27 Nov 2026 14:31:49 GMT"}
    assert plain.info_of(headers) == ObjectInfo(3, "e", 1795789909, etag_is_hash=True)
    assert plain.info_of({name: text for name, text in (headers | odd).items() if text is not None}) is None


@pytest.mark.parametrize(
    "encrypted",
    [
        {"x-amz-server-side-encryption": "aws:kms"},
        {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
    ],
)
def test_the_etag_of_an_encrypted_object_is_no_hash(encrypted: dict[str, str]) -> None:
    headers = {"Content-Length": "3", "ETag": '"e"', "Last-Modified": "Fri, 27 Nov 2026 14:31:49 GMT"}
    assert plain.info_of(headers | encrypted) == ObjectInfo(3, "e", 1795789909, etag_is_hash=False)


@pytest.mark.parametrize("size_bytes", [0, 3 * MIB, 11 * MIB])
async def test_bytes_read_for_the_signature_are_no_progress(
    rclone_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    """How many lanes an upload uses follows from what was sent; on plain HTTP all is read twice."""
    monkeypatch.setattr(upload, "MULTIPART_FROM_BYTES", 5 * MIB)
    monkeypatch.setattr(upload, "PART_BYTES", 5 * MIB)
    (tmp_path / "file").write_bytes(random.Random(2).randbytes(size_bytes))
    source = await FILES.open_source(RootedPath(tmp_path, PurePosixPath("file")))
    assert source is not None
    bucket = Bucket(rclone_s3.url, BUCKET, "us-east-1", ACCESS_KEY, SECRET_KEY)
    client = LazyClient(bucket)
    key = StagingKey(f"progress/{random.getrandbits(48):x}")
    left = LeftParts(bucket, client)
    sending = upload.Upload(client, bucket, key, source, anyio.CapacityLimiter(4), left)
    await sending.run()
    assert sending._crew.moved_bytes == size_bytes
    await source.close()
    client.close()


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server on loopback that answers as `handler` does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def answering(status: int, code: str) -> Iterator[str]:
    """A server that answers every request with one S3 error; HEAD has no body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>a message</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name is http.server's

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Says nothing."""

    with serving(Handler) as url:
        yield url


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (403, "RequestTimeTooSkewed", StoreRefused, "this machine's clock is wrong"),
        (400, "ExpiredToken", StoreRefused, "the credentials have expired"),
        (403, "InvalidToken", StoreRefused, "the credentials have expired"),
        (403, "AccessDenied", StoreRefused, "s3:GetObject"),
        (400, "AuthorizationHeaderMalformed", StoreRefused, "LOCALAI_STORAGE_REGION"),
        (418, "Teapot", StoreRefused, "answers 418 Teapot: a message"),
        (503, "SlowDown", StoreUnavailable, "answers 503 SlowDown: a message"),
    ],
)
async def test_what_the_store_says_is_explained(
    status: int, code: str, kind: type[WorkerError], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localai_worker.adapters.s3.client.ATTEMPTS", 1)
    with answering(status, code) as url:
        store = store_at(url)
        with pytest.raises(kind, match=text):
            await store.check()
        with pytest.raises(kind, match=text):
            await store.open(StagingKey("key"))
        if status < 418:
            with pytest.raises(kind, match=text):  # HEAD has no body: the reason is asked for
                await store.head(StagingKey("key"))
        await store.close()


async def test_no_proxy_stands_before_a_loopback_address(
    key: StagingKey, rclone_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    store = store_at(rclone_s3.url)
    assert (await store.head(key)).size_bytes == len(CONTENT)
    await store.close()
    assert is_loopback("http://localhost:9000")
    assert is_loopback("http://[::1]:9000")
    assert not is_loopback("https://s3.eu-central-1.amazonaws.com")


async def test_a_store_is_loaded_when_it_is_first_used(key: StagingKey, rclone_s3: S3Server) -> None:
    store = LazyS3ObjectStore(rclone_s3.url, BUCKET, "us-east-1", ACCESS_KEY, SECRET_KEY)
    await store.close()
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(store.check)
    assert (await store.head(key)).size_bytes == len(CONTENT)
    await store.close()


def test_a_bucket_is_told_without_its_keys() -> None:
    bucket = Bucket("http://user:pass@minio:9000", "models", access_key="AKIA", secret_key="s3cr3t")
    assert str(bucket) == 'bucket "models" at http://minio:9000'
    assert "s3cr3t" not in repr(bucket)
    assert "AKIA" not in repr(bucket)


def test_a_silent_store_is_not_asked_for_every_upload_that_is_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bucket = Bucket(
        f"http://127.0.0.1:{free_port()}", BUCKET, "us-east-1", ACCESS_KEY, SECRET_KEY, connect_s=2
    )
    client = LazyClient(bucket)
    left = LeftParts(bucket, client)
    for number in range(2):
        left.give_up(StagingKey("models/phi-4"), f"upload-{number}")
    caplog.clear()
    left.try_again()
    assert [record.levelname for record in caplog.records if "parts are left" in record.message] == [
        "WARNING"
    ]
    client.close()
