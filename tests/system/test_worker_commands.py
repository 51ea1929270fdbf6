"""Good and bad commands to one real worker process; it answers each and lives on."""

import os
import re
import signal
import stat
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio
import pytest

from localai_worker.app.simulator.local_cluster import TOKEN, LocalCluster
from localai_worker.app.simulator.staging import HttpStager
from localai_worker.domain.errors import BackendUnavailable
from localai_worker.domain.galleries import Gallery
from tests.system import tiny_backends
from tests.system.nodes import Node, children_of, group_of, start_node, until

SECRET_URL_PART = "sesame"


@pytest.fixture(scope="module")
async def node(cluster: LocalCluster) -> Node:
    """One worker for all tests here: each uses backends of its own names."""
    url = f"nats://worker:{SECRET_URL_PART}@127.0.0.1:{cluster.nats_port}"
    environment = {
        "LOCALAI_NATS_URL": url,
        "LOCALAI_BACKEND_STOP_GRACE": "1s",
        "LOCALAI_BACKEND_READY_TIMEOUT": "10s",
        "LOCALAI_HEARTBEAT_INTERVAL": "1s",
        "AWS_SECRET_ACCESS_KEY": "aws-secret",
        "OPERATOR_SAYS": "hello",
    }
    return await start_node(cluster, "commands", environment)


@pytest.fixture(autouse=True)
async def answers_afterwards(node: Node) -> AsyncIterator[None]:
    """Whatever a test sends, the worker answers the next command."""
    yield
    assert node.worker.process.returncode is None
    await node.listed()


async def test_heartbeats_come_at_once_and_repeatedly(node: Node) -> None:
    await until(lambda: node.endpoints.count("heartbeat") >= 3)
    assert node.endpoints[0] == "heartbeat"


async def test_a_backend_is_started_listed_reused_and_stopped(node: Node) -> None:
    """G-2.1.4, G-3.3.2."""
    tiny_backends.healthy(node.backends, "good")
    address = await node.install("good", "qwen")
    assert await node.install("good", "qwen") == address
    assert "good" in await node.listed()
    await node.cluster.frontend.inference.health(address, timeout_s=5)
    await node.cluster.frontend.stop(node.id, "qwen")
    await until(lambda: "backend stopped: replica=qwen#0" in node.log)
    with pytest.raises(BackendUnavailable):
        await node.cluster.frontend.inference.health(address, timeout_s=1)


async def test_a_run_file_that_is_not_executable_is_started_all_the_same(node: Node) -> None:
    """G-W29: for all who may read it."""
    directory = tiny_backends.healthy(node.backends, "not-executable", mode=0o644)
    await node.install("not-executable")
    assert stat.S_IMODE((directory / "run.sh").stat().st_mode) == 0o755


async def test_a_backend_gets_its_token_and_none_of_the_workers_secrets(node: Node) -> None:
    """G-W14: third-party code sees no password of the worker."""
    directory = tiny_backends.healthy(node.backends, "curious", before="env > environment")
    await node.install("curious")
    written = (directory / "environment").read_text()
    environment = dict(line.split("=", 1) for line in written.splitlines() if "=" in line)
    assert environment["LOCALAI_GRPC_AUTH_TOKEN"] == TOKEN
    assert environment["LOCALAI_BACKEND_PARENT_WATCH"] == "false"
    assert environment["OPERATOR_SAYS"] == "hello"
    assert "LOCALAI_REGISTRATION_TOKEN" not in environment
    assert SECRET_URL_PART not in written
    assert "aws-secret" not in written


async def test_a_backend_that_dies_at_start_is_answered_with_its_last_20_lines(node: Node) -> None:
    """G-F1: the reply says what the backend said; 20 lines, not 21."""
    tiny_backends.dying(node.backends, "dying")
    error = await node.refused_install("dying")
    lines = "\n".join(f"line {number}" for number in range(11, 31))
    assert error.startswith(
        f"backend process dying#0 died during startup. Last stderr:\n{lines}\n(exit code 3, "
    )
    assert not [child for child in children_of(node.worker) if "dying" in " ".join(child.cmdline())]


async def test_the_port_of_a_backend_that_died_rests(node: Node) -> None:
    """S-W31: the next replica gets another one."""
    tiny_backends.shell(node.backends, "says-port", 'echo "$2" >> "${0%/*}/ports"; exit 1')
    tiny_backends.healthy(node.backends, "next")
    await node.refused_install("says-port")
    tried = (node.backends / "says-port" / "ports").read_text().strip().rpartition(":")[2]
    assert not (await node.install("next")).endswith(f":{tried}")


async def test_an_endless_last_line_is_capped(node: Node) -> None:
    """N-B30: a reply the bus would drop leaves the frontend waiting for its timeout."""
    tiny_backends.dying(node.backends, "loud", last_bytes=2_000_000)
    error = await node.refused_install("loud")
    assert error.startswith("backend process loud#0 died during startup. Last stderr:\n")
    assert re.search(r"xxx\n\(exit code 3, after [\d.]+ s\)$", error)
    assert len(error) < 20_000


async def test_a_missing_run_file_is_named(node: Node) -> None:
    empty = node.worker.directory / "no-run-file"
    empty.mkdir()
    error = await node.refused_install("", uri=str(empty))
    place = node.backends / "no-run-file" / "run.sh"
    assert f'not a valid backend: run file not found "{place}"' in error
    assert not (node.backends / "no-run-file").exists()


async def test_a_backend_that_is_nowhere_is_named(node: Node) -> None:
    (node.backends / "hollow").mkdir(parents=True)
    for name in ("hollow", "ghost"):
        error = await node.refused_install(name)
        assert error == f'installing backend from gallery: no backend found with name "{name}"'


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        ("- name: [\n", "line "),
        ("name: a map\n", "a gallery index is a YAML list of entries, this is none"),
        ("- one text\n", "entry 1 is no mapping"),
    ],
)
async def test_an_unreadable_gallery_is_named_with_the_reason(
    node: Node, content: str | None, why: str
) -> None:
    index = node.backends / "index.yaml"
    node.backends.mkdir(exist_ok=True)
    index.unlink(missing_ok=True)
    if content is not None:
        index.write_text(content)
    error = await node.refused_install("wanted", [Gallery("house", f"file://{index}")])
    assert error.startswith(
        "installing backend from gallery: failed to read gallery elements: "
        f'gallery "house" at file://{index}: '
    )
    assert why in error


async def test_a_gallery_outside_the_backends_path_is_refused(node: Node) -> None:
    """A message must not make the worker read any file it likes."""
    outside = node.worker.directory / "index.yaml"
    outside.write_text("[]")
    for url in (f"file://{outside}", f"file://{node.backends}/../index.yaml"):
        error = await node.refused_install("wanted", [Gallery("house", url)])
        assert f"path is outside of trusted root {node.backends}" in error


async def test_a_gallery_of_a_kind_nobody_reads_is_refused_with_those_that_are(node: Node) -> None:
    url = "gopher://example.invalid/index.yaml"
    error = await node.refused_install("wanted", [Gallery("house", url)])
    assert f'no reader for source "{url}"; supported: https://' in error


@pytest.mark.parametrize("name", ["../models/evil", "/etc", "..", "a/../../evil", "nul\0byte", ""])
async def test_a_name_that_is_a_path_is_refused_and_starts_nothing(node: Node, name: str) -> None:
    """N-B7: nothing outside the backends directory is ever started."""
    evil = tiny_backends.shell(
        node.worker.directory / "models", f"evil-{abs(hash(name))}", "touch /nonexistent"
    )
    before = {child.pid for child in children_of(node.worker)}
    error = await node.refused_install(name)
    assert error.startswith("installing backend from gallery: ")
    assert {child.pid for child in children_of(node.worker)} <= before
    assert evil.is_dir()


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b'"x"', b'{"backend":1}', b"\xff\xfe", b'{"backend":"a"']
)
async def test_a_malformed_install_is_answered_with_the_reason(node: Node, payload: bytes) -> None:
    reply = await node.cluster.frontend.bus.request(node.subjects.install, payload, timeout_s=10)
    assert b'"success":false' in reply
    assert b"invalid request: " in reply


async def test_a_stop_that_names_nothing_stops_nothing(node: Node) -> None:
    """N-B31: a typo must not end every backend."""
    tiny_backends.healthy(node.backends, "spared")
    address = await node.install("spared")
    for payload in (b"{", b"[]", b'{"backend":7}', b'{"backend":"../x"}', b'{"backend":"nul\\u0000"}'):
        said = len(node.log)
        await node.cluster.frontend.bus.publish(node.subjects.stop, payload)
        await until(partial(node.said, "stop", since=said))
    assert "Traceback" not in node.log
    assert await node.install("spared") == address


async def test_any_list_request_is_answered(node: Node) -> None:
    for payload in (b"", b"{", b"null", b"\xff"):
        reply = await node.cluster.frontend.bus.request(node.subjects.list, payload, timeout_s=10)
        assert b'"backends":' in reply


async def test_a_stubborn_backend_is_gone_with_its_whole_group(node: Node) -> None:
    """N-B8: members that ignore TERM hold GPU memory after their leader is gone; no zombie stays either."""
    directory = tiny_backends.stubborn(node.backends, "stubborn")
    await node.install("stubborn")
    child = int((directory / "child.pid").read_text())
    leader = os.getpgid(child)
    assert {leader, child} <= set(group_of(leader))
    await node.cluster.frontend.stop(node.id, "stubborn")
    await until(lambda: "backend stopped: replica=stubborn#0" in node.log)
    assert leader not in group_of(leader)
    await until(lambda: not group_of(leader))  # the child is reaped by whoever adopted it


async def test_a_member_left_behind_by_a_crash_is_ended(node: Node) -> None:
    """G-W12, N-B32: the worker reports the death at once and clears the group away."""
    directory = tiny_backends.stubborn(node.backends, "crashing")
    await node.install("crashing")
    child = int((directory / "child.pid").read_text())
    leader = os.getpgid(child)
    os.kill(leader, signal.SIGKILL)
    await until(lambda: not group_of(leader))
    assert "backend died: replica=crashing#0" in node.log
    assert "killed by signal 9" in node.log


async def test_a_backend_that_says_anything_but_ok_is_not_ready(cluster: LocalCluster) -> None:
    """G-F1: the reply tells the last answer and which setting gives it longer; so for one that never
    listens.
    """
    node = await start_node(cluster, "impatient", {"LOCALAI_BACKEND_READY_TIMEOUT": "2s"})
    tiny_backends.healthy(node.backends, "loading", health="LOADING")
    tiny_backends.silent(node.backends, "silent")
    errors: dict[str, str] = {}

    async def install(name: str) -> None:
        errors[name] = await node.refused_install(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(install, "loading")
        tasks.start_soon(install, "silent")
    for name, last in (
        ("loading", "health check failed: 'LOADING'"),
        ("silent", "nobody listens on its port"),
    ):
        assert re.match(rf"backend {name}#0 did not become ready within [\d.]+s", errors[name])
        assert last in errors[name]
        assert "LOCALAI_BACKEND_READY_TIMEOUT" in errors[name]
    assert children_of(node.worker) == []


async def test_a_slow_install_delays_no_other(node: Node) -> None:
    """N-B13, G-F3."""
    tiny_backends.healthy(node.backends, "slow", before="until test -e go; do sleep 0.05; done")
    tiny_backends.healthy(node.backends, "quick")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.install, "slow")
        await node.install("quick")
        assert "backend ready: replica=slow#0" not in node.log
        (node.backends / "slow" / "go").touch()
    assert "backend ready: replica=slow#0" in node.log


@pytest.mark.parametrize("generation", ["seed", "newer"])
async def test_files_are_staged_once(node: Node, tmp_path: Path, generation: str) -> None:
    """H-6: the hash of what is there spares the second upload; both generations of clients."""
    source = tmp_path / "weights.bin"
    source.write_bytes(os.urandom(300_000))
    key = f"models/{generation}/weights.bin"
    address = node.cluster.registry.row(node.id).http_address
    stager = HttpStager(address, TOKEN, "seed" if generation == "seed" else "newer")
    path = Path(await stager.ensure(source, key))
    assert path.read_bytes() == source.read_bytes()
    stored = path.stat()
    assert await stager.ensure(source, key) == str(path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stored.st_ino, stored.st_mtime_ns)
    source.write_bytes(b"changed")
    await stager.ensure(source, key)
    assert path.read_bytes() == b"changed"
    await stager.close()
