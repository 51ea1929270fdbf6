"""Commands that delete and replace backends, over an in-memory bus and in virtual time."""

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from localai_worker.adapters.memory.machine import FakeProcess, FakeProgram
from localai_worker.app.testing import MemoryNode, memory_node
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.messages.backend import (
    BackendDeleteReply,
    BackendDeleteRequest,
    BackendInstallReply,
    BackendStopRequest,
    BackendUpgradeReply,
    BackendUpgradeRequest,
)
from localai_worker.domain.ports.processes import StopSignal

GOLDEN = Path(__file__).parents[1] / "golden/nats"
BACKENDS = Path("/node/backends")
MALFORMED = [b"", b"{", b"[]", b'"x"', b"7", b"\xff\xfe", b'{"backend":1}', b'{"backend":["llama-cpp"]}']


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@pytest.fixture
async def node() -> AsyncIterator[MemoryNode]:
    async with memory_node() as node:
        node.offer("llama-cpp")
        yield node


@pytest.fixture
def undying(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process obeys a signal, as with a driver that hangs."""

    def ignore(_self: FakeProcess, _signal: StopSignal) -> None:
        return None

    monkeypatch.setattr(FakeProcess, "signal_group", ignore)


async def delete(node: MemoryNode, backend: str) -> BackendDeleteReply:
    return await node.ask(node.subjects.delete, BackendDeleteRequest(backend=backend), BackendDeleteReply)


async def test_a_delete_stops_the_models_of_the_backend_and_removes_its_files(node: MemoryNode) -> None:
    """G-3.4.1, G-3.4.6, S-W13, S-B05, G-F5: processes belong to models, the backend's name finds them."""
    node.offer("whisper")
    await node.install("llama-cpp", "qwen")
    await node.install("llama-cpp", "qwen", replica_index=1)
    await node.install("whisper", "tiny")
    reply = await delete(node, "llama-cpp")
    assert reply == BackendDeleteReply.succeeded(stopped=("qwen#0", "qwen#1"))
    assert set(json.loads(reply.to_wire())) == set(
        json.loads((GOLDEN / "19_delete_ok.json").read_text())["reply"]
    )
    assert node.keys == ["tiny#0"]
    assert node.directories == ["whisper"]
    assert [process.backend.freed for process in node.machine.processes] == [1, 1, 0]


@pytest.mark.parametrize("name", ["llama-cpp", "cpu-llama-cpp", "test@cpu-llama-cpp", "CPU-llama-cpp"])
@pytest.mark.parametrize("started_as", ["llama-cpp", "cpu-llama-cpp"])
async def test_alias_and_directory_are_one_backend(node: MemoryNode, name: str, started_as: str) -> None:
    """G-3.4.2, S-W13: whichever of its names it was started by and is deleted by."""
    node.offer("cpu-llama-cpp", alias="llama-cpp")
    assert (await node.install("cpu-llama-cpp", "idle")).success
    await node.install(started_as, "qwen")
    reply = await delete(node, name)
    assert reply.success
    assert set(reply.stopped_process_keys) == {"idle#0", "qwen#0"}
    assert node.keys == []
    assert node.directories == []


@pytest.mark.parametrize("started_as", ["llama-cpp", "cpu-llama-cpp"])
async def test_another_variant_under_the_same_alias_stays(node: MemoryNode, started_as: str) -> None:
    """S-W13: also when its process was started by the alias that both have."""
    node.offer("cpu-llama-cpp", alias="llama-cpp")
    node.offer("vulkan-llama-cpp", alias="llama-cpp")
    await node.install("cpu-llama-cpp", "idle")
    await node.install(started_as, "qwen")
    await node.install("vulkan-llama-cpp", "phi")
    reply = await delete(node, "vulkan-llama-cpp")
    assert reply == BackendDeleteReply.succeeded(stopped=("phi#0",))
    assert node.keys == ["idle#0", "qwen#0"]
    assert node.directories == ["cpu-llama-cpp"]


async def test_an_alias_removes_the_directory_that_it_starts(node: MemoryNode) -> None:
    """G-3.4.3, G-W23: of two under one alias the one preferred on this host, not the first by name."""
    for name in ("aaa-tool", "cpu-tool"):
        node.offer(name, alias="tool")
        await node.install(name, name)
    assert (await delete(node, "tool")).stopped_process_keys == ("cpu-tool#0",)
    assert node.directories == ["aaa-tool"]


async def test_a_meta_backend_goes_with_the_build_it_points_to(node: MemoryNode) -> None:
    """G-3.4.4."""
    node.offer("cpu-tool")
    node.offer_meta("tool", "cpu-tool")
    await node.install("tool", "m")
    assert node.directories == ["cpu-tool", "tool"]
    assert (await delete(node, "tool")).stopped_process_keys == ("m#0",)
    assert node.directories == []


async def test_a_build_that_another_meta_backend_needs_stays(node: MemoryNode) -> None:
    """G-3.4.5, G-W23: upstream breaks the other one."""
    node.offer("cpu-tool")
    for meta in ("tool", "tool-development"):
        node.offer_meta(meta, "cpu-tool")
        await node.install(meta, f"{meta}-model")
    assert (await delete(node, "tool")).stopped_process_keys == ("tool-model#0",)
    assert node.directories == ["cpu-tool", "tool-development"]
    assert node.keys == ["tool-development-model#0"]
    assert (await delete(node, "tool-development")).success
    assert node.directories == []


async def test_a_meta_backend_without_its_build_goes_too(node: MemoryNode) -> None:
    """G-3.4.4."""
    node.parts.filesystem().put(
        BACKENDS / "tool/metadata.json", b'{"name":"tool","meta_backend_for":"cpu-tool"}'
    )
    assert (await delete(node, "tool")).success
    assert node.directories == []


async def test_a_meta_backend_that_an_alias_hides_goes_with_it(node: MemoryNode) -> None:
    """G-W23: the usual layout, where meta backend and alias bear one name."""
    node.offer("cpu-tool", alias="tool")
    node.offer_meta("tool", "cpu-tool")
    await node.install("tool", "m")
    assert (await delete(node, "tool")).stopped_process_keys == ("m#0",)
    assert node.directories == []


async def test_a_system_backend_is_refused_and_runs_on(node: MemoryNode) -> None:
    """G-3.4.2."""
    golden = json.loads((GOLDEN / "20_delete_system_backend.json").read_text())
    system = node.container.settings().backends_system_path
    assert system is not None
    node.parts.filesystem().put(system / "piper" / "run.sh", b"#!/bin/sh\n", mode=0o755)
    await node.install("piper", "voice")
    reply = json.loads(
        await node.bus.request(node.subjects.delete, golden["request_wire"].encode(), timeout_s=9)
    )
    assert reply == {**golden["reply"], "reports_stopped_processes": True}
    assert node.keys == ["voice#0"]


@pytest.mark.parametrize("name", ["absent", "test@absent", "llama", "llama-cpp.backup"])
async def test_deleting_what_is_not_installed_is_a_success(
    node: MemoryNode, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """G-3.4.2, N-B36: one node without the backend must not turn the whole deletion red."""
    caplog.set_level("INFO")
    await node.install("llama-cpp", "qwen")
    reply = await delete(node, name)
    assert reply.to_wire() == b'{"success":true,"reports_stopped_processes":true}'
    assert f"backend is not installed, nothing to delete: name={name}" in caplog.text
    assert node.keys == ["qwen#0"]
    assert node.directories == ["llama-cpp"]


async def test_processes_whose_backend_has_lost_its_files_are_stopped(node: MemoryNode) -> None:
    """S-B05: somebody removed the directory by hand."""
    await node.install("llama-cpp", "qwen")
    await node.parts.filesystem().remove_tree(BACKENDS / "llama-cpp")
    assert (await delete(node, "llama-cpp")).stopped_process_keys == ("qwen#0",)
    assert node.keys == []


@pytest.mark.parametrize("name", ["", "../models", "..", ".", "/node/models", "a/../../x", "a\0b", ".hidden"])
async def test_a_name_that_is_no_backends_removes_nothing(node: MemoryNode, name: str) -> None:
    """Nothing outside the backends directory, and not the directory itself."""
    node.parts.filesystem().put(Path("/node/models/keep"), b"1")
    node.parts.filesystem().put(BACKENDS / ".hidden/keep", b"1")
    before = node.parts.filesystem().files()
    reply = await delete(node, name)
    assert reply.stopped_process_keys == ()
    assert reply.success == (name in {"a/../../x", "/node/models"})  # `/` reads as `__`: plain and absent
    assert node.parts.filesystem().files() == before


async def test_a_broken_backend_can_be_deleted(node: MemoryNode) -> None:
    node.parts.filesystem().put(BACKENDS / "half/metadata.json", b"{")
    node.parts.filesystem().put(BACKENDS / "plain", b"#!/bin/sh\n", mode=0o755)
    assert (await delete(node, "half")).success
    assert (await delete(node, "plain")).success
    assert node.directories == []


@pytest.mark.usefixtures("undying")
async def test_a_process_that_lives_on_keeps_all_files(node: MemoryNode) -> None:
    """G-3.4.6, S-W13: the deletion ends before the first file, and says which process is in the way."""
    await node.install("llama-cpp", "qwen")
    reply = await delete(node, "llama-cpp")
    assert not reply.success
    assert reply.error.startswith("could not stop running process qwen#0: stopping backend process qwen#0: ")
    assert (reply.stopped_process_keys, reply.reports_stopped_processes) == ((), True)
    assert node.directories == ["llama-cpp"]


async def test_what_was_stopped_is_told_when_the_files_cannot_go(node: MemoryNode) -> None:
    await node.install("llama-cpp", "qwen")
    node.parts.filesystem().chmod(BACKENDS, 0o555)
    reply = await delete(node, "llama-cpp")
    node.parts.filesystem().chmod(BACKENDS, 0o755)
    assert not reply.success
    assert reply.error.startswith("cannot write /node/backends/llama-cpp: permission denied")
    assert reply.stopped_process_keys == ("qwen#0",)


async def test_a_delete_waits_for_a_stop_under_way(node: MemoryNode) -> None:
    """N-B39: the files go and the key is told after the process is dead, not before."""
    node.offer("slow", FakeProgram(term_s=8))
    await node.install("slow", "qwen")
    await node.bus.publish(node.subjects.stop, b'{"backend":"qwen"}')
    await anyio.sleep(1)
    began_s = anyio.current_time()
    assert (await delete(node, "slow")).stopped_process_keys == ("qwen#0",)
    assert anyio.current_time() - began_s == pytest.approx(7, abs=0.1)
    assert node.machine.running == ()


async def test_a_delete_during_an_install_waits_for_its_end(node: MemoryNode) -> None:
    """N-B12, G-W30: the files of an install at work are not removed under it."""
    node.parts.artifacts().delay_s = 60
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.install, "llama-cpp", "qwen")
        await anyio.sleep(1)
        reply = await delete(node, "llama-cpp")
        assert anyio.current_time() >= 60
        assert reply.success
    assert node.directories == []


async def test_a_delete_of_another_backend_does_not_wait(node: MemoryNode) -> None:
    """S-W18: different directories, side by side."""
    node.offer("whisper")
    await node.install("whisper", "tiny")
    node.parts.artifacts().delay_s = 60
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.install, "llama-cpp", "qwen")
        await anyio.sleep(1)
        began_s = anyio.current_time()
        assert (await delete(node, "whisper")).success
        assert anyio.current_time() - began_s < 1


async def test_a_delete_during_the_worst_stop_ends_after_the_grace(node: MemoryNode) -> None:
    """S-W13: gracefully, with the usual time, well within the frontend's two minutes."""
    node.offer("stubborn", FakeProgram(term_s=math.inf))
    await node.install("stubborn", "qwen")
    began_s = anyio.current_time()
    assert (await delete(node, "stubborn")).success
    assert anyio.current_time() - began_s == pytest.approx(15, abs=0.1)


async def upgrade(node: MemoryNode, backend: str, **fields: Any) -> BackendUpgradeReply:
    request = BackendUpgradeRequest(backend=backend, **fields)
    return await node.ask(node.subjects.upgrade, request, BackendUpgradeReply, timeout_s=900)


def release(node: MemoryNode, name: str, content: bytes = b"#!/bin/sh\n# new\n") -> None:
    """Put another payload under the uri of the backend `name`."""
    node.parts.artifacts().trees[f"ocifile:///images/{name}.tar"] = {"run.sh": content}


def program(node: MemoryNode, name: str) -> bytes:
    return node.parts.filesystem().get(BACKENDS / name / "run.sh") or b""


async def test_an_upgrade_stops_replaces_and_starts_nothing(node: MemoryNode) -> None:
    """G-2.1.9, G-F4: processes end without Free, and are told; the next install starts the new version."""
    node.offer("whisper")
    for backend, model, index in (("llama-cpp", "qwen", 0), ("llama-cpp", "qwen", 1), ("whisper", "tiny", 0)):
        await node.install(backend, model, replica_index=index)
    release(node, "llama-cpp")
    reply = await upgrade(node, "llama-cpp")
    assert reply == BackendUpgradeReply.succeeded(stopped=("qwen#0", "qwen#1"))
    assert set(json.loads(reply.to_wire())) == set(
        json.loads((GOLDEN / "10_upgrade_ok.json").read_text())["reply"]
    )
    assert node.keys == ["tiny#0"]
    assert [process.backend.freed for process in node.machine.processes] == [0, 0, 0]
    assert program(node, "llama-cpp").endswith(b"# new\n")
    assert (await node.install("llama-cpp", "qwen")).success


@pytest.mark.parametrize("name", ["cpu-llama-cpp", "llama-cpp", "test@cpu-llama-cpp", "qwen", "qwen#0"])
async def test_a_stop_takes_every_name_of_a_backend(node: MemoryNode, name: str) -> None:
    """S-W14: alias, directory, gallery name, model or key; others stay, and so do the files."""
    node.offer("cpu-llama-cpp", alias="llama-cpp")
    node.offer("whisper")
    await node.install("cpu-llama-cpp", "qwen")
    await node.install("whisper", "tiny")
    await node.bus.publish(node.subjects.stop, BackendStopRequest(backend=name).to_wire())
    await anyio.sleep(1)
    assert node.keys == ["tiny#0"]
    assert node.directories == ["cpu-llama-cpp", "whisper"]


@pytest.mark.parametrize("name", ["qwen", "qwen#0"])
async def test_an_install_sent_after_a_stop_is_not_handed_the_process_that_ends(
    node: MemoryNode, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N-B40: the frontend publishes the stop and asks for the model again at once; the disk is slow."""
    node.offer("llama-cpp")
    await node.install("llama-cpp", "qwen")
    (old,) = node.machine.running
    installed = node.container.installed()
    identity_of, waits_s = installed.identity, [1.0]

    async def slow_at_first(backend: str) -> frozenset[str]:
        await anyio.sleep(waits_s.pop() if waits_s else 0)
        return await identity_of(backend)

    monkeypatch.setattr(installed, "identity", slow_at_first)
    await node.bus.publish(node.subjects.stop, BackendStopRequest(backend=name).to_wire())
    reply = await node.install("llama-cpp", "qwen")
    (new,) = node.machine.running
    assert reply.success
    assert new.pid != old.pid
    assert node.keys == ["qwen#0"]


async def test_an_upgrade_waits_for_a_stop_under_way(node: MemoryNode) -> None:
    """N-B39: a key is told only when its process is dead, and the files change only then."""
    node.offer("slow", FakeProgram(term_s=8))
    await node.install("slow", "qwen")
    await node.bus.publish(node.subjects.stop, b'{"backend":"qwen"}')
    await anyio.sleep(1)
    began_s = anyio.current_time()
    assert (await upgrade(node, "slow")).stopped_process_keys == ("qwen#0",)
    assert anyio.current_time() - began_s == pytest.approx(7, abs=0.1)


async def test_an_upgrade_of_what_is_not_there_installs_it(node: MemoryNode) -> None:
    assert (
        await upgrade(node, "llama-cpp")
    ).to_wire() == b'{"success":true,"reports_stopped_processes":true}'
    assert node.directories == ["llama-cpp"]
    assert node.machine.processes == []


@pytest.mark.parametrize("name", ["llama-cpp", "test@llama-cpp", "LLAMA-cpp"])
async def test_an_upgrade_goes_by_any_name_of_the_gallery(node: MemoryNode, name: str) -> None:
    """G-F4, S-W13: and stops what was started under another one."""
    await node.install("llama-cpp", "qwen")
    release(node, "llama-cpp")
    assert (await upgrade(node, name)).stopped_process_keys == ("qwen#0",)
    assert program(node, "llama-cpp").endswith(b"# new\n")


async def test_an_upgrade_of_a_meta_backend_replaces_its_build(node: MemoryNode) -> None:
    """G-F4: processes of the build itself are ended as well, their files go too."""
    node.offer("cpu-tool")
    node.offer_meta("tool", "cpu-tool")
    await node.install("tool", "a")
    await node.install("cpu-tool", "b")
    release(node, "cpu-tool")
    assert set((await upgrade(node, "tool")).stopped_process_keys) == {"a#0", "b#0"}
    assert program(node, "cpu-tool").endswith(b"# new\n")
    assert node.directories == ["cpu-tool", "tool"]


async def test_an_upgrade_from_a_uri_replaces_the_external_backend(node: MemoryNode) -> None:
    uri = "ocifile:///images/llama-cpp.tar"
    await node.install("mine", "qwen", uri=uri, name="mine")
    release(node, "llama-cpp")
    reply = await upgrade(node, "mine", uri=uri, name="mine")
    assert reply.stopped_process_keys == ("qwen#0",)
    assert program(node, "mine").endswith(b"# new\n")


async def test_an_upgrade_that_fails_leaves_the_old_version(node: MemoryNode) -> None:
    """G-F7: and tells what it had stopped, in upstream's words."""
    golden = json.loads((GOLDEN / "11_upgrade_failed_partial.json").read_text())["reply"]
    await node.install("llama-cpp", "qwen")
    before = program(node, "llama-cpp")
    release(node, "llama-cpp")
    node.parts.artifacts().broken.add("ocifile:///images/llama-cpp.tar")
    reply = await upgrade(node, "llama-cpp")
    assert set(json.loads(reply.to_wire())) == set(golden)
    assert reply.error.startswith("upgrading backend from gallery: failed to download backend ")
    assert (reply.success, reply.stopped_process_keys) == (False, ("qwen#0",))
    assert program(node, "llama-cpp") == before
    assert (await node.install("llama-cpp", "qwen")).success


async def test_failures_of_upgrades_have_upstreams_words(node: MemoryNode) -> None:
    assert (await upgrade(node, "absent")).error == (
        'upgrading backend from gallery: no backend found with name "absent"'
    )
    assert (await upgrade(node, "")).error == "upgrading backend from gallery: backend name is empty"
    assert (await upgrade(node, "x", uri="oci://r/x:1")).error == (
        "upgrading backend from external URI: specifying a name is required for OCI images"
    )
    assert "unsafe backend name" in (await upgrade(node, "../models")).error
    assert "decoding backend galleries" in (await upgrade(node, "llama-cpp", backend_galleries="[{")).error
    assert node.directories == []


@pytest.mark.usefixtures("undying")
async def test_an_upgrade_or_forced_install_over_a_process_that_lives_on_changes_nothing(
    node: MemoryNode,
) -> None:
    """G-F6: no process is left in a directory that is gone."""
    await node.install("llama-cpp", "qwen")
    before = program(node, "llama-cpp")
    release(node, "llama-cpp")
    reply = await upgrade(node, "llama-cpp")
    stuck = "stopping backend process qwen#0: process group"
    assert reply.error.startswith(f"stopping running backend before upgrade: {stuck}")
    assert (reply.stopped_process_keys, reply.reports_stopped_processes) == ((), True)
    forced = await node.install("llama-cpp", force=True)
    assert forced.error.startswith(f"stopping running backend before reinstall: {stuck}")
    assert program(node, "llama-cpp") == before


async def test_a_process_started_from_the_old_version_during_an_upgrade_is_ended(node: MemoryNode) -> None:
    """G-F6: its files go when the new version comes."""
    await node.install("llama-cpp", "qwen")
    release(node, "llama-cpp")
    node.parts.artifacts().delay_s = 60
    replies: list[BackendUpgradeReply] = []

    async def upgrading() -> None:
        replies.append(await upgrade(node, "llama-cpp"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(upgrading)
        await anyio.sleep(1)
        assert (await node.install("llama-cpp", "phi")).success
    assert replies[0].stopped_process_keys == ("qwen#0", "phi#0")
    assert node.keys == []


async def test_a_forced_install_replaces_and_starts_anew(node: MemoryNode) -> None:
    """G-2.1.9, G-F4: what a newer frontend sends a worker without backend.upgrade."""
    golden = json.loads((GOLDEN / "07_install_legacy_force.json").read_text())["reply"]
    await node.install("llama-cpp", "qwen")
    await node.install("llama-cpp")
    release(node, "llama-cpp")
    reply = await node.install("llama-cpp", force=True)
    assert set(json.loads(reply.to_wire())) == set(golden)
    assert reply.success
    assert node.keys == ["llama-cpp#0"]
    assert program(node, "llama-cpp").endswith(b"# new\n")
    assert [process.backend.freed for process in node.machine.processes] == [0, 0, 0]


async def test_a_forced_install_ends_the_process_of_its_own_key(node: MemoryNode) -> None:
    """G-F4: also when another backend runs under it."""
    node.offer("whisper")
    await node.install("whisper", "m")
    assert (await node.install("llama-cpp", "m", force=True)).success
    assert [(each.key.model, each.backend) for each in node.worker.supervisor.replicas] == [
        ("m", "llama-cpp")
    ]


async def test_a_forced_install_of_an_impossible_replica_touches_nothing(node: MemoryNode) -> None:
    await node.install("llama-cpp", "m")
    assert "m#-1" in (await node.install("llama-cpp", "m", replica_index=-1, force=True)).error
    assert node.keys == ["m#0"]


async def test_operations_on_one_directory_follow_each_other(node: MemoryNode) -> None:
    """G-2.1.10, S-W18, N-B12: upgrades and installs, by whatever name; other backends do not wait."""
    node.offer("whisper")
    node.offer("cpu-tool")
    node.offer_meta("tool", "cpu-tool")
    node.parts.artifacts().delay_s = 10
    ended_s: dict[str, float] = {}

    async def timed(
        label: str, work: Callable[[], Awaitable[BackendUpgradeReply | BackendInstallReply]]
    ) -> None:
        assert (await work()).success
        ended_s[label] = anyio.current_time() - began_s

    began_s = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(timed, "first", lambda: upgrade(node, "tool"))
        tasks.start_soon(timed, "second", lambda: upgrade(node, "cpu-tool"))
        tasks.start_soon(timed, "third", lambda: node.install("cpu-tool", force=True))
        tasks.start_soon(timed, "other", lambda: upgrade(node, "whisper"))
    assert sorted(ended_s.values()) == pytest.approx([10, 10, 20, 30], abs=0.2)
    assert ended_s["other"] == pytest.approx(10, abs=0.1)


async def test_a_delete_during_an_upgrade_waits_for_its_end(node: MemoryNode) -> None:
    """N-B12, G-W30, S-W18: the deletion has the last word, and nothing of either is left."""
    await node.install("llama-cpp", "qwen")
    node.parts.artifacts().delay_s = 20
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(upgrade, node, "llama-cpp")
        await anyio.sleep(1)
        assert (await delete(node, "test@llama-cpp")).success
    assert node.directories == []


@pytest.mark.parametrize("payload", [*MALFORMED, b'{"backend":"llama-cpp","replica_index":"0"}'])
async def test_a_malformed_upgrade_is_answered_and_has_no_effect(node: MemoryNode, payload: bytes) -> None:
    await node.install("llama-cpp", "qwen")
    reply = json.loads(await node.bus.request(node.subjects.upgrade, payload, timeout_s=10))
    assert set(reply) == {"success", "error"}
    assert reply["success"] is False
    assert reply["error"].startswith("invalid request: ")
    assert node.keys == ["qwen#0"]


@pytest.mark.parametrize("payload", MALFORMED)
async def test_a_malformed_delete_is_answered_and_has_no_effect(node: MemoryNode, payload: bytes) -> None:
    await node.install("llama-cpp", "qwen")
    reply = json.loads(await node.bus.request(node.subjects.delete, payload, timeout_s=10))
    assert set(reply) == {"success", "error"}
    assert reply["success"] is False
    assert reply["error"].startswith("invalid request: ")
    assert node.keys == ["qwen#0"]
    assert node.directories == ["llama-cpp"]


async def test_a_delete_answers_while_the_frontend_still_listens_though_an_install_goes_on(
    node: MemoryNode,
) -> None:
    """The frontend waits two minutes; a download may take longer."""
    node.offer("slow")
    node.parts.artifacts().delay_s = 600
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.install, "slow", "qwen")
        await anyio.sleep(1)
        reply = await node.ask(
            node.subjects.delete, BackendDeleteRequest(backend="slow"), BackendDeleteReply, timeout_s=120
        )
        assert not reply.success
        assert 'backend "slow" is being installed or upgraded; waited 90 s' in reply.error
        tasks.cancel_scope.cancel()
