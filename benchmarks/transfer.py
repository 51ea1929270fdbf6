"""Model files in and out: against Go's net/http, nginx and other ASGI servers, all in one run.

The peers store bodies and hash them while receiving (Go) or send files (Go, nginx); other servers carry our
routes without lending their sockets. Files lie in memory where there is room (/dev/shm): the servers are
measured, not the disk. Rounds go round the servers, and each figure is a median.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import psutil
from anyio import to_thread

from benchmarks.harness import Report, run

MIB = 1024 * 1024
GO_SOURCE = Path(__file__).parent / "go" / "reference.go"
SAME = 0.95  # below 1.0, what counts as equal
AT_ONCE = 8
AT_ONCE_ROUNDS = 3  # of each: 8 GiB twice, at full size


@dataclass
class Server:
    """A running server, and where its files are."""

    name: str
    port: int
    prefix: str
    process: "subprocess.Popen[str]"
    times: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, what: str, method: str, path: str, source: Path, count: int) -> None:
        """Let the client do it once; the seconds go to `times[what]`."""
        command = [sys.executable, "-m", "benchmarks.transfer_client", str(self.port), method]
        command += [f"{self.prefix}{path}", str(source), str(count)]
        before_s = self._cpu_s()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
        self.times.setdefault(what, []).append(float(done.stdout))
        self.times.setdefault(f"{what}, cpu", []).append(self._cpu_s() - before_s)

    def _cpu_s(self) -> float:
        """Processor time so far; nginx's workers count with their parent."""
        family = [psutil.Process(self.process.pid)]
        family += family[0].children()
        return sum(sum(each.cpu_times()[:2]) for each in family)

    def median(self, what: str) -> float:
        return statistics.median(self.times[what])

    def state(self) -> tuple[float, float]:
        """Of one of ours: how long the event loop was held up since last asked (s), and memory (MiB)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        worst_s, rss_mib = self.process.stdout.readline().split()
        return float(worst_s), float(rss_mib)


async def measure(report: Report, quick: bool) -> None:
    await to_thread.run_sync(_measure, report, quick)


def _measure(report: Report, quick: bool) -> None:
    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="localai-worker-", dir=_memory())))
        free = shutil.disk_usage(top).free
        size = min(1024 * MIB, free // (AT_ONCE * 4)) if not quick else 128 * MIB
        rounds, memory_mib = 3 if quick else 5, 0.0
        source = _random_file(top / "source", size)
        ours = stack.enter_context(_ours(top / "ours", "worker"))
        others = [stack.enter_context(_ours(top / name, name)) for name in ("uvicorn", "granian")]
        go = stack.enter_context(_go(top)) if shutil.which("go") else None
        servers = [ours, *others, *([go] if go else [])]
        nginx = stack.enter_context(_nginx(top, top / "ours" / "one0")) if shutil.which("nginx") else None
        for _ in range(rounds):
            for server in servers:
                server.measure("put", "PUT", "one", source, 1)
            for server in [*servers, *([nginx] if nginx else [])]:
                server.measure("get", "GET", "one0", source, 1)
        for number in range(AT_ONCE_ROUNDS):
            for server in [each for each in (ours, go) if each]:
                server.measure("put at once", "PUT", "many", source, AT_ONCE)
                for each in range(AT_ONCE):
                    (top / ("ours" if server is ours else "go") / f"many{each}").unlink()
            if number == 0:  # by now everything is loaded, and every thread there
                _, memory_mib = ours.state()
        for what in ("PUT", "GET"):
            ours.measure(f"watched {what}", what, "one" if what == "PUT" else "one0", source, 1)
        _tell_speeds(report, servers, nginx, size)
        _tell_hashing(report, ours, top, quick)
        _tell_small_files(report, ours, top, quick)
        worst_s, now_mib = ours.state()
        report.figure("size_mib", size / MIB)
        report.figure("memory_after_one_round_mib", memory_mib)
        report.figure("memory_at_the_end_mib", now_mib)
        report.at_most("event loop held up, at worst (ms)", worst_s * 1000, 50)
        report.at_most("memory at the end / after the first round", now_mib / memory_mib, 1.2)


def _tell_speeds(report: Report, servers: list[Server], nginx: Server | None, size: int) -> None:
    ours, peers = servers[0], {server.name: server for server in servers[1:]}
    for server in servers:
        report.figure(f"{server.name}_put_mib_s", size / MIB / server.median("put"))
        report.figure(f"{server.name}_put_cpu_s_per_gib", server.median("put, cpu") * 1024 * MIB / size)
    for server in [*servers, *([nginx] if nginx else [])]:
        report.figure(f"{server.name}_get_mib_s", size / MIB / server.median("get"))
    report.figure("worker_put_at_once_mib_s", AT_ONCE * size / MIB / ours.median("put at once"))
    if go := peers.get("go"):
        report.at_least("PUT, speed / Go's", go.median("put") / ours.median("put"), SAME)
        at_once = go.median("put at once") / ours.median("put at once")
        report.at_least(f"PUT {AT_ONCE} at once, speed / Go's", at_once, SAME)
        report.at_least("GET, speed / Go's", go.median("get") / ours.median("get"), SAME)
    if nginx:
        report.at_least("GET, speed / nginx's", nginx.median("get") / ours.median("get"), 0.9)


def _tell_hashing(report: Report, ours: Server, top: Path, quick: bool) -> None:
    """The second HEAD of a file that holds nothing but a hole reads none of it."""
    with (top / "ours" / "sparse").open("wb") as sparse:
        sparse.truncate((1 if quick else 10) << 30)
    for what in ("first head", "second head"):
        ours.measure(what, "HEAD", "sparse", top / "source", 1)
    report.figure("first_head_s", ours.median("first head"))
    report.figure("second_head_s", ours.median("second head"))
    report.at_most("second HEAD / first", ours.median("second head") / ours.median("first head"), 0.05)


def _tell_small_files(report: Report, ours: Server, top: Path, quick: bool) -> None:
    count = 1000 if quick else 10_000
    ours.measure("small", "MANY", "small", _random_file(top / "small", 1000), count)
    report.at_least("small files, a second", count / ours.median("small"), 500)


def _memory() -> Path | None:
    """A file system in memory with room for everything; None: where temporary files lie."""
    memory = Path("/dev/shm")
    room = min(shutil.disk_usage(memory).free, psutil.virtual_memory().available) if memory.is_dir() else 0
    return memory if room > 4 << 30 else None


def _random_file(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - start)))
    return path


@contextmanager
def _started(command: list[str], name: str, prefix: str, port: int = 0) -> Iterator[Server]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield Server(name, port or int(process.stdout.readline()), prefix, process)
        finally:
            process.terminate()


@contextmanager
def _ours(directory: Path, name: str) -> Iterator[Server]:
    directory.mkdir()
    command = [sys.executable, "-m", "benchmarks.transfer_server", str(directory), name]
    with _started(command, name, "/v1/files/models/") as server:
        yield server


@contextmanager
def _go(top: Path) -> Iterator[Server]:
    (top / "go").mkdir()
    build = ["go", "build", "-o", str(top / "reference"), str(GO_SOURCE)]
    subprocess.run(build, check=True, env={**os.environ, "GOFLAGS": "", "GO111MODULE": "off"})
    with _started([str(top / "reference"), "-dir", str(top / "go")], "go", "/") as server:
        yield server


@contextmanager
def _nginx(top: Path, serves: Path) -> Iterator[Server]:
    """nginx sends the file that our server stored, by sendfile."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    (top / "nginx.conf").write_text(
        dedent(f"""
        daemon off; pid {top}/nginx.pid; error_log {top}/nginx.log; user {_user()};
        events {{}}
        http {{
            access_log off; sendfile on; tcp_nopush on;
            client_body_temp_path {top}/n1; proxy_temp_path {top}/n2; fastcgi_temp_path {top}/n3;
            uwsgi_temp_path {top}/n4; scgi_temp_path {top}/n5;
            server {{ listen 127.0.0.1:{port}; root {serves.parent}; }}
        }}
        """)
    )
    with _started(["nginx", "-c", str(top / "nginx.conf")], "nginx", "/", port) as server:
        _until_listening(port)
        yield server


def _until_listening(port: int) -> None:
    import socket
    import time

    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    sys.exit("nginx does not listen")


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


if __name__ == "__main__":
    run("transfer", measure)
