"""Supervision of real processes by a real worker: many at once, crashes, what forks and will not go."""

import os
import signal
from pathlib import Path

import anyio
import psutil
import pytest

from localai_worker.app.simulator.local_cluster import LocalCluster
from localai_worker.domain.messages.backend import BackendInstallReply, BackendInstallRequest
from tests.system import tiny_backends
from tests.system.nodes import Node, start_node, until


@pytest.fixture(scope="module")
async def node(cluster: LocalCluster) -> Node:
    """One worker for all tests here."""
    environment = {"LOCALAI_BACKEND_STOP_GRACE": "1s", "LOCALAI_BACKEND_LOG_MIB": "1"}
    return await start_node(cluster, "supervision", environment)


async def install(node: Node, backend: str, **fields: str) -> BackendInstallReply:
    request = BackendInstallRequest(backend=backend, **fields)  # type: ignore[arg-type]
    bus = node.cluster.frontend.bus
    return BackendInstallReply.from_wire(
        await bus.request(node.subjects.install, request.to_wire(), timeout_s=60)
    )


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def child_of(directory: Path) -> int:
    await until(lambda: (directory / "child.pid").exists() and (directory / "child.pid").read_text().strip())
    return int((directory / "child.pid").read_text())


async def test_eight_installs_at_once_are_all_answered_and_mixed_up_by_nobody(node: Node) -> None:
    """S-W18, N-B13: eight backends from outside, and eight models of one of them that all need it."""
    sources = node.worker.directory / "sources"
    for number in range(8):
        tiny_backends.healthy(sources, f"engine-{number}", health="OK")
    addresses: dict[str, str] = {}

    async def bring(model: str, backend: str) -> None:
        reply = await install(node, "", uri=str(sources / backend), name=backend, model_id=model)
        assert reply.success, reply.error
        addresses[model] = reply.address

    async with anyio.create_task_group() as installs:
        for number in range(8):
            installs.start_soon(bring, f"different-{number}", f"engine-{number}")
            installs.start_soon(bring, f"same-{number}", "engine-0")
    assert len(set(addresses.values())) == 16
    for address in addresses.values():
        await node.cluster.frontend.inference.health(address, timeout_s=5)
    assert node.log.count("backend installed: name=engine-0") == 1
    assert len([name for name in await node.listed() if name.startswith("engine-")]) == 8
    await node.cluster.frontend.stop(node.id, "engine-0")
    await until(lambda: node.log.count("backend stopped: replica=same-") == 8)


async def test_a_daemon_that_left_the_group_ends_with_its_backend(node: Node) -> None:
    """N-B8: in a session of its own, deaf to TERM, and nobody's child any more."""
    directory = tiny_backends.escaping(node.backends, "escaping")
    await node.install("escaping")
    child = await child_of(directory)
    assert is_alive(child)
    await node.cluster.frontend.stop(node.id, "escaping")
    await until(lambda: "backend stopped: replica=escaping#0" in node.log)
    assert not is_alive(child)


async def test_a_crash_is_told_with_its_signal_in_log_and_next_reply(node: Node) -> None:
    """G-F21, G-W12: by the event of its death, not at the next install."""
    directory = tiny_backends.healthy(
        node.backends, "fragile", before="echo $$ > child.pid\necho goodbye >&2"
    )
    await node.install("fragile")
    os.kill(await child_of(directory), signal.SIGSEGV)
    await until(lambda: "backend stopped: replica=fragile#0" in node.log)
    line = next(line for line in node.log.splitlines() if "backend died: replica=fragile#0" in line)
    assert "killed by signal 11 (SIGSEGV), after " in line
    assert "goodbye" in line
    reply = await install(node, "fragile", model_id="fragile")
    assert reply.success
    assert "killed by signal 11 (SIGSEGV)" in reply.previous_death


async def test_a_crash_loop_is_answered_instead_of_started(node: Node) -> None:
    """S-W29: with how often, until when, and the last words."""
    tiny_backends.shell(node.backends, "looping", 'echo start >> "${0%/*}/starts"; echo no GPU >&2; exit 7')
    for _ in range(3):
        assert "died during startup" in await node.refused_install("looping")
    error = await node.refused_install("looping")
    assert error.startswith("backend process looping#0 died 3 times in ")
    assert ", next try at " in error
    assert error.endswith("Last stderr:\nno GPU")
    assert (node.backends / "looping" / "starts").read_text().count("start") == 3


async def test_output_is_bounded_while_the_backend_goes_on_writing(node: Node) -> None:
    """N-B10, G-W9: the file is emptied under the writer's feet, and nothing comes of it."""
    flood = "(while :; do head -c 60000 /dev/zero | tr '\\0' x; echo; sleep 0.01; done) &"
    tiny_backends.healthy(node.backends, "chatty", before=flood)
    await node.install("chatty")
    logs = node.worker.directory / "localai-worker" / "logs"
    written = logs / "chatty#0.stdout.log"
    inode = written.stat().st_ino
    await until(lambda: (logs / "chatty#0.stdout.log.1").exists())
    await until(lambda: written.stat().st_size > 0)
    assert written.stat().st_ino == inode
    # It is copied over again by every round: whole most of the time, but not at any moment.
    await until(lambda: (logs / "chatty#0.stdout.log.1").stat().st_size >= 1 << 20)
    await node.cluster.frontend.stop(node.id, "chatty")
    await until(lambda: "backend stopped: replica=chatty#0" in node.log)
