"""Fetching from an object store: `files.ensure` beside what upstream does, a single stream, and rclone.

One `rclone serve s3` serves all. On loopback, then with 20 MB/s for each connection, then 1,000 small objects
over a network whose answers take 20 ms. Peers and ours alternate; every byte is hashed by ours and by rclone.
"""

import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import anyio
import psutil
from anyio import to_thread

from benchmarks import harness
from benchmarks.harness import Report
from benchmarks.slow_network import slow_network
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.filesystem.ranged_files import LocalRangedFiles
from localai_worker.adapters.processes.open_files import LocalOpenFiles
from localai_worker.adapters.s3.client import Bucket, LazyClient
from localai_worker.adapters.s3.object_store import S3ObjectStore
from localai_worker.adapters.system_clock import SystemClock
from localai_worker.app.simulator.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, s3_server
from localai_worker.domain.cache_directory import CacheDirectory
from localai_worker.domain.cache_janitor import CacheJanitor
from localai_worker.domain.cache_records import CacheRecords
from localai_worker.domain.object_cache import ObjectCache
from localai_worker.domain.store_health import StoreHealth

MIB = 2**20
RATE = 20e6
SMALL_BYTES = 16 * 1024
DELAY_S = 0.02


@dataclass
class Bench:
    """The server's port and a scratch directory."""

    directory: Path
    port: int

    def bucket(self, port: int) -> Bucket:
        # The server hashes all that it has not seen before it answers for the first time.
        keys = ("us-east-1", ACCESS_KEY, SECRET_KEY)
        return Bucket(f"http://127.0.0.1:{port}", BUCKET, *keys, read_s=300.0)

    def cache(self, store: S3ObjectStore) -> ObjectCache:
        files, ranged = LocalFileSystem(), LocalRangedFiles()
        records = CacheRecords(files, self.directory / "state")
        directory = CacheDirectory(files, records, SystemClock(), self.directory / "cache")
        janitor = CacheJanitor(directory, lambda: (), LocalOpenFiles())
        return ObjectCache(store, ranged, directory, janitor, StoreHealth(store))

    async def ours(self, port: int, *keys: str) -> float:
        """Seconds to ensure all `keys` with an empty cache; what the disk does afterwards is waited for."""
        store = S3ObjectStore(self.bucket(port))
        await store.check()  # boto3 is loaded once in a worker's life
        cache = self.cache(store)
        async with cache.running():
            started_s = time.perf_counter()
            async with anyio.create_task_group() as tasks:
                for key in keys:
                    tasks.start_soon(cache.ensure, key)
            taken_s = time.perf_counter() - started_s
        await store.close()
        await to_thread.run_sync(self.clear)
        return taken_s

    async def streams(self, port: int, *keys: str) -> float:
        """Seconds for one GetObject after the other, each to a temporary and renamed, as upstream does."""

        def work() -> float:
            client = LazyClient(self.bucket(port)).get()
            client.list_objects_v2(Bucket=BUCKET, MaxKeys=1)
            (self.directory / "cache").mkdir(exist_ok=True)
            started_s = time.perf_counter()
            for number, key in enumerate(keys):
                temporary = self.directory / "cache" / f"{number}.tmp"
                body = client.get_object(Bucket=BUCKET, Key=key)["Body"]
                with temporary.open("wb", buffering=0) as file:
                    while block := body.read(512 * 1024):
                        file.write(block)
                temporary.rename(temporary.with_suffix(""))
            return time.perf_counter() - started_s

        taken_s = await to_thread.run_sync(work)
        await to_thread.run_sync(self.clear)
        return taken_s

    async def curl(self, port: int, key: str) -> float:
        """Seconds for one signed GET by curl."""
        target = self.directory / "curled"
        command = ["curl", "--silent", "--fail", "--noproxy", "*", "--output", str(target)]
        command += ["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", f"{ACCESS_KEY}:{SECRET_KEY}"]
        command += ["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]
        command += [f"http://127.0.0.1:{port}/{BUCKET}/{key}"]
        started_s = time.perf_counter()
        await anyio.run_process(command)
        taken_s = time.perf_counter() - started_s
        await to_thread.run_sync(self.clear)
        return taken_s

    async def rclone(self, port: int, key: str) -> float:
        """Seconds for `rclone copyto`."""
        remote = f":s3,provider=Other,endpoint='http://127.0.0.1:{port}',access_key_id={ACCESS_KEY}"
        remote += f",secret_access_key={SECRET_KEY}:{BUCKET}/{key}"
        copied = str(self.directory / "copied")
        command = [_program("rclone"), "--config", os.devnull, "copyto", remote, copied]
        started_s = time.perf_counter()
        await anyio.run_process(command)
        taken_s = time.perf_counter() - started_s
        await to_thread.run_sync(self.clear)
        return taken_s

    def clear(self) -> None:
        """Leave nothing in the cache, and nothing for the disk to do."""
        for name in ("cache", "state"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for name in ("curled", "copied"):
            (self.directory / name).unlink(missing_ok=True)
        os.sync()


class Memory:
    """The most memory this process had of its own while in the `with` block, above what it had before."""

    def __enter__(self) -> Self:
        self._before, self.grown_bytes, self._over = self._now(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.grown_bytes = max(self.grown_bytes, self._now() - self._before)

    def _now(self) -> int:
        return int(psutil.Process().memory_info().rss)


async def measure(report: Report, quick: bool) -> None:
    rounds = 1 if quick else 3
    size_bytes = (96 if quick else 1024) * MIB
    with tempfile.TemporaryDirectory(prefix="localai-worker-bench-") as name:
        directory = Path(name).resolve()
        objects = directory / "objects"
        (objects / BUCKET / "small").mkdir(parents=True)
        _write(objects / BUCKET / "large", size_bytes)
        count = 200 if quick else 1000
        keys = [f"small/{number:04}" for number in range(count)]
        for key in keys:
            _write(objects / BUCKET / key, SMALL_BYTES)
        _write(objects / BUCKET / "throttled", (192 if quick else 1024) * MIB)
        with (objects / BUCKET / "huge").open("wb") as file:
            file.truncate((64 if quick else 10 * 1024) * MIB)
        async with s3_server(objects, _free_port()) as server:  # it does not see what comes later
            bench = Bench(directory, server.port)
            await bench.streams(server.port, "large")  # the server hashes what it has not seen
            await _loopback(report, bench, rounds, size_bytes)
            await _throttled(report, bench)
            await _small(report, bench, keys)
            await _repeated(report, bench, (objects / BUCKET / "huge").stat().st_size)


async def _loopback(report: Report, bench: Bench, rounds: int, size_bytes: int) -> None:
    single: Callable[[], Awaitable[float]] = lambda: bench.streams(bench.port, "large")  # noqa: E731
    if shutil.which("curl"):
        single = lambda: bench.curl(bench.port, "large")  # noqa: E731
    times: dict[str, list[float]] = {"ours": [], "single": [], "rclone": []}
    grown_bytes = 0
    for _ in range(rounds):
        times["single"].append(await single())
        with Memory() as memory:
            times["ours"].append(await bench.ours(bench.port, "large"))
        grown_bytes = max(grown_bytes, memory.grown_bytes)
        times["rclone"].append(await bench.rclone(bench.port, "large"))
    taken_s = {name: statistics.median(each) for name, each in times.items()}
    for name, seconds in taken_s.items():
        report.figure(f"loopback_{name}_mib_s", size_bytes / MIB / seconds)
    report.at_least("loopback: ensure / a single stream", taken_s["single"] / taken_s["ours"], 0.95)
    report.at_least("loopback: ensure / rclone copy", taken_s["rclone"] / taken_s["ours"], 0.95)
    report.at_most("memory grown by one ensure (MiB)", grown_bytes / MIB, 64)


async def _throttled(report: Report, bench: Bench) -> None:
    name = "throttled"
    with slow_network(bench.port, rate=RATE) as port:
        await bench.streams(bench.port, name)
        single_s = await bench.streams(port, name)
        ours_s = await bench.ours(port, name)
    report.figure("20_mb_s_single_s", single_s)
    report.figure("20_mb_s_ours_s", ours_s)
    report.at_least("20 MB/s a connection: ensure / a single stream", single_s / ours_s, 6)


async def _small(report: Report, bench: Bench, keys: list[str]) -> None:
    report.figure("small_objects", len(keys))
    await bench.streams(bench.port, *keys)
    serial_s, ours_s = await bench.streams(bench.port, *keys), await bench.ours(bench.port, *keys)
    report.figure("small_loopback_serial_per_s", len(keys) / serial_s)
    report.figure("small_loopback_ours_per_s", len(keys) / ours_s)
    with slow_network(bench.port, delay_s=DELAY_S) as port:
        serial_s, ours_s = await bench.streams(port, *keys), await bench.ours(port, *keys)
    report.figure("small_20_ms_serial_per_s", len(keys) / serial_s)
    report.figure("small_20_ms_ours_per_s", len(keys) / ours_s)
    report.at_least("small objects, 20 ms away: ensures at once / one after the other", serial_s / ours_s, 5)


async def _repeated(report: Report, bench: Bench, size_bytes: int) -> None:
    store = S3ObjectStore(bench.bucket(bench.port))
    cache = bench.cache(store)
    requests: list[str] = []
    async with cache.running():
        with (bench.directory / "cache" / "huge").open("wb") as file:  # a hole, as the object is
            file.truncate(size_bytes)
        await cache.ensure("huge")
        _count_requests(store, requests)
        started_s = time.perf_counter()
        await cache.ensure("huge")
        report.figure("repeated_ensure_ms", (time.perf_counter() - started_s) * 1000)
    await store.close()
    bench.clear()
    report.figure("repeated_ensure_gib", size_bytes / 2**30)
    assert requests, "nothing was counted"
    assert requests == ["HEAD"] * len(requests), requests
    report.at_most("requests of a repeated ensure (HEADs)", len(requests), 1)


def _count_requests(store: S3ObjectStore, requests: list[str]) -> None:
    """Have the method of everything that is sent from now on put into `requests`."""
    client: Any = store._client.get()  # noqa: SLF001
    session = client._endpoint.http_session  # noqa: SLF001
    send = session.send

    def count(request: Any) -> Any:
        requests.append(request.method)
        return send(request)

    session.send = count


def _write(path: Path, size_bytes: int) -> None:
    source = random.Random(str(path))
    with path.open("wb") as file:
        for start in range(0, size_bytes, MIB):
            file.write(source.randbytes(min(MIB, size_bytes - start)))


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        raise SystemExit(f"{name} is not installed")
    return found


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    harness.run("object_store", measure)
