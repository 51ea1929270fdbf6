"""Installing an image from a registry on loopback, beside skopeo and umoci, and beside a plain copy.

The registry is docker-registry, with nginx before it where connections are limited; the fetch that is killed
comes from the tests' own, which tells what it sent.
Each of our fetches runs in a fresh process, on an empty store unless the row says otherwise.
"""

import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.harness import Report, run
from benchmarks.images import MIB, real_image, real_layers, zipped
from tests.archives import digest_of
from tests.docker_registry import docker_registry
from tests.registry import Image, Registry
from tests.servers import free_port

_LIMIT_BYTES_S = 40e6
_CUT_SHARE = 0.7


async def measure(report: Report, quick: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="localai-worker-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        top = Path(name).resolve()
        image = real_image((96 if quick else 512) * MIB, 6)
        report.figure("image_stored_mib", sum(map(len, image.layers)) / MIB)
        with docker_registry(top) as registry:
            uri = registry.push(image)
            _against_peers(report, uri, top, rounds=1 if quick else 3)
            _upgrade(report, registry, image, top)
            _memory(report, registry, top, layers=2 if quick else 8)
            _against_one_stream(report, registry, top, 192 if quick else 512)
        with _limited_registry(image) as (registry, sent_bytes):
            _resume(report, registry, image, top, sent_bytes)


def _ours(uri: str, top: Path, connections: int = 8) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.fetching", uri, str(top), str(connections)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    outcome: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return outcome


def _against_peers(report: Report, uri: str, top: Path, *, rounds: int) -> None:
    """Nothing is removed between the rounds.

    ext4 without a journal, as virtual machines have it, looks for each new file past every inode that was
    freed within the last minutes: after an `rm -r`, making files takes forty times as long, for everybody.
    """
    ours_s, tools_s, copy_s = [], [], []
    reference = uri.removeprefix("oci://")
    for number in range(rounds):
        place = top / f"ours-{number}"
        _settle()
        outcome = _ours(uri, place)
        ours_s.append(outcome["seconds"])
        report.figure("image_unpacked_mib", outcome["size_bytes"] / MIB)
        if shutil.which("skopeo") and shutil.which("umoci"):
            _settle()
            tools_s.append(_skopeo_and_umoci(reference, top / f"tools-{number}"))
        _settle()
        copy_s.append(_timed("cp", "-r", place / "into", top / f"copy-{number}", then_sync=top))
    ours = statistics.median(ours_s)
    report.figure("ours_s", ours)
    report.figure("cp_and_sync_s", statistics.median(copy_s))
    if tools_s:
        report.figure("skopeo_and_umoci_s", statistics.median(tools_s))
        report.at_least("skopeo + umoci / ours", statistics.median(tools_s) / ours, 2.5)
    report.at_most("ours / cp -r + sync", ours / statistics.median(copy_s), 1.5)


def _skopeo_and_umoci(reference: str, place: Path) -> float:
    place.mkdir()
    copied = _timed(
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        f"docker://{reference}",
        f"oci:{place}/image:1",
    )
    unpacked = _timed(
        "umoci", "raw", "unpack", "--rootless", "--image", f"{place}/image:1", place / "tree", then_sync=place
    )
    return copied + unpacked


def _timed(*command: str | Path, then_sync: Path | None = None) -> float:
    """Seconds for the command, and for what it wrote to reach the disk."""
    started_s = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    if then_sync is not None:
        subprocess.run(["sync", "-f", then_sync], check=True)
    return time.monotonic() - started_s


def _settle() -> None:
    """What others wrote is on the disk before a measurement begins."""
    os.sync()


def _upgrade(report: Report, registry: Registry, image: Image, top: Path) -> None:
    before = _ours(registry.uri("1"), top / "upgrade")
    (changed,) = real_layers(8 * MIB, 1, level=5)
    layers = [*image.layers[:2], changed, *image.layers[3:]]
    after = _ours(registry.push(Image(layers), "2"), top / "upgrade")
    assert before["downloaded_bytes"] == sum(map(len, image.layers))
    report.at_most("upgrade: downloaded / changed layer", after["downloaded_bytes"] / len(changed), 1.0)
    report.figure("upgrade_s", after["seconds"])
    shutil.rmtree(top / "upgrade")


def _memory(report: Report, registry: Registry, top: Path, *, layers: int) -> None:
    """Layers of 256 MiB; each begins otherwise, so that none is the same."""
    (body,) = real_layers(256 * MIB, 1, level=1)
    content = [_marked(body, number) for number in range(layers)]
    outcome = _ours(registry.push(Image(content), "large"), top / "large")
    report.figure("large_unpacked_mib", outcome["size_bytes"] / MIB)
    report.at_most("memory grown by (MiB)", outcome["growth_mib"], 64)
    shutil.rmtree(top / "large")


def _marked(body: bytes, number: int) -> bytes:
    """The same layer under another digest: a gzip member with a directory of its own goes before it."""
    about = tarfile.TarInfo(f"layer-{number}")
    about.type = tarfile.DIRTYPE
    return zipped(about.tobuf(), 1) + body


def _against_one_stream(report: Report, registry: Registry, top: Path, size_mib: int) -> None:
    """A layer like model weights, which do not compress: read by one connection, and fetched by eight.

    The one stream only reads; our fetch verifies, unpacks and syncs as well.
    """
    if shutil.which("nginx") is None:
        return
    layer = _weights(size_mib)
    registry.push(Image([layer]), "weights")
    with _limited(registry, top) as host:
        started_s = time.monotonic()
        with (
            httpx.Client(base_url=f"http://{host}/v2/team/backend/", trust_env=False, timeout=60) as client,
            client.stream("GET", f"blobs/{digest_of(layer)}") as answer,
        ):
            for _ in answer.iter_raw(1 << 20):
                pass
        one_s = time.monotonic() - started_s
        ours = _ours(Registry(host).uri("weights"), top / "limited")
    report.figure("one_stream_s", one_s)
    report.figure("limited_s", ours["seconds"])
    report.figure("limited_fetch_s", ours["fetch_seconds"])
    report.at_least("one stream of 40 MB/s / ours", one_s / ours["fetch_seconds"], 4)
    shutil.rmtree(top / "limited")


def _weights(size_mib: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, size_bytes in (("run.sh", 0), ("weights", size_mib * MIB)):
            about = tarfile.TarInfo(name)
            about.size = size_bytes
            archive.addfile(about, io.BytesIO(os.urandom(size_bytes)))
    return stream.getvalue()


@contextmanager
def _limited(registry: Registry, top: Path) -> Iterator[str]:
    """nginx before the registry, 40 MB/s for each connection; where it listens."""
    host = f"127.0.0.1:{free_port()}"
    config = top / "nginx.conf"
    config.write_text(
        f"daemon off; pid {top}/nginx.pid; error_log {top}/nginx.log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {top}/body; proxy_temp_path {top}/proxy;\n"
        f"fastcgi_temp_path {top}/f; uwsgi_temp_path {top}/u; scgi_temp_path {top}/s;\n"
        f"server {{ listen {host}; location / {{ limit_rate {int(_LIMIT_BYTES_S)};\n"
        f"proxy_max_temp_file_size 0; proxy_pass http://{registry.host}; }} }} }}\n"
    )
    process = subprocess.Popen(["nginx", "-e", f"{top}/nginx.log", "-c", str(config)])
    try:
        while True:
            try:
                httpx.get(f"http://{host}/v2/", trust_env=False, verify=False)
                break
            except httpx.TransportError:
                if process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield host
    finally:
        process.terminate()
        process.wait()


def _resume(
    report: Report, registry: Registry, image: Image, top: Path, sent_bytes: Callable[[], int]
) -> None:
    """Kill a fetch when 70 % have been sent, and fetch again."""
    total_bytes = sum(map(len, image.layers))
    before_bytes = sent_bytes()
    command = [sys.executable, "-m", "benchmarks.fetching", registry.uri("1"), str(top / "cut")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while sent_bytes() - before_bytes < _CUT_SHARE * total_bytes:
        time.sleep(0.01)
    process.kill()
    process.wait()
    _ours(registry.uri("1"), top / "cut")
    again_bytes = sent_bytes() - before_bytes - total_bytes
    report.at_most("killed at 70 %: fetched again / all (%)", 100 * again_bytes / total_bytes, 5)
    shutil.rmtree(top / "cut")


@contextmanager
def _limited_registry(image: Image) -> Iterator[tuple[Registry, Callable[[], int]]]:
    command = [sys.executable, "-m", "benchmarks.limited_registry", str(_LIMIT_BYTES_S)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        host = process.stdout.readline().strip()
        registry = Registry(host)
        registry.push(image)
        client = httpx.Client(base_url=f"http://{host}", trust_env=False)
        yield registry, lambda: int(client.get("/sent").text)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    run("install", measure)
