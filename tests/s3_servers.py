"""Real S3 servers as child processes: rclone's gateway and SeaweedFS."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import find_executable, free_port

ACCESS_KEY = "TESTACCESSKEY"
SECRET_KEY = "test-secret-key"
BUCKET = "models"
START_S = 60.0
_ATTEMPTS = 5


@dataclass
class S3Server:
    """A running server; `directory` holds its data."""

    port: int
    directory: Path
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


def start_rclone(directory: Path, port: int | None = None, *options: str) -> S3Server:
    """`rclone serve s3` with one bucket, and more `options`; a folder is a bucket."""
    (directory / BUCKET).mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    command = ["serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    return _start([find_executable("rclone"), *command, *options, str(directory)], port, directory, {})


def start_seaweed(directory: Path) -> S3Server:
    """`weed server -s3`, all its parts on ports of their own.

    It takes eight ports, one after the other, and ends when somebody was quicker: then with others.
    """
    for attempt in range(_ATTEMPTS):
        server = _start_seaweed(directory.with_name(f"{directory.name}{attempt}"))
        if server is not None:
            return server
    pytest.fail(f"SeaweedFS ended {_ATTEMPTS} times")


def _start_seaweed(directory: Path) -> S3Server | None:
    master, volume, filer, s3 = (_port_pair() for _ in range(4))
    options = {
        "dir": directory, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.port": master,
        "volume.port": volume, "volume.max": 20, "filer.port": filer, "s3.port": s3,
        "master.volumeSizeLimitMB": 64, "volume.preStopSeconds": 0,
        "s3.port.iceberg": 0, "s3.port.lance": 0,  # on fixed ports otherwise
    }  # fmt: skip
    command = [
        find_executable("weed"),
        "server",
        "-s3",
        *(f"-{name}={each}" for name, each in options.items()),
    ]
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    server = _start(command, s3, directory, keys)
    return server if _make_bucket(server) else None


def _make_bucket(server: S3Server) -> bool:
    """The S3 port listens before the other parts are ready: wait until the bucket takes a file.

    False when the server has ended.
    """
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1").client(
        "s3",
        endpoint_url=server.url,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={}),
    )
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            if BUCKET not in {each["Name"] for each in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError) as error:
            if server.process.poll() is not None:
                return False
            if time.monotonic() > deadline_s:
                server.stop()
                pytest.fail(f"SeaweedFS takes no file: {error}")
            time.sleep(0.1)
        else:
            client.close()
            return True


def _port_pair() -> int:
    """A free port whose gRPC companion, 10,000 above, is free too."""
    while True:
        port = free_port()
        with socket.socket() as probe:
            if port + 10_000 < 65_536 and probe.connect_ex(("127.0.0.1", port + 10_000)) != 0:
                return port


def _start(command: list[str], port: int, directory: Path, environment: dict[str, str]) -> S3Server:
    directory.mkdir(parents=True, exist_ok=True)
    log = directory.parent / f"s3-{port}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=directory, env={**os.environ, **environment}
        )
    server = S3Server(port, directory, process)
    deadline_s = time.monotonic() + START_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        if process.poll() is not None or time.monotonic() > deadline_s:
            server.stop()
            pytest.fail(f"{command[0]} does not listen on {port}:\n{log.read_text()[-4000:]}")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One `rclone serve s3` for the whole run."""
    server = start_rclone(tmp_path_factory.mktemp("rclone") / "data")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def seaweed_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One SeaweedFS for the whole run."""
    server = start_seaweed(tmp_path_factory.mktemp("seaweed") / "data")
    yield server
    server.stop()
