"""The backends on disk: what is listed, what a name starts, what is left out."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain.errors import FileUnreadable
from localai_worker.domain.installed import InstalledBackend, InstalledBackends
from localai_worker.domain.messages.backend_list import BackendListReply, NodeBackendInfo

GOLDEN = Path(__file__).parents[1] / "golden/backends"
BACKENDS, SYSTEM = Path("/backends"), Path("/system")


class Disk:
    """Backends laid out in memory, and the service that reads them."""

    def __init__(self, capability: str = "nvidia-cuda-12") -> None:
        self.filesystem = InMemoryFileSystem()
        self.installed = InstalledBackends(self.filesystem, BACKENDS, SYSTEM, capability)

    def program(self, *parts: str, system: bool = False) -> Path:
        path = (SYSTEM if system else BACKENDS).joinpath(*parts)
        self.filesystem.put(path, b"#!/bin/sh\n", mode=0o755)
        return path

    def metadata_file(self, directory: str, content: bytes) -> None:
        self.filesystem.put(BACKENDS / directory / "metadata.json", content)

    def metadata(self, directory: str, **fields: str) -> None:
        self.metadata_file(directory, json.dumps(fields).encode())

    def backend(self, directory: str, **fields: str) -> Path:
        self.metadata(directory, **{"name": directory, **fields})
        return self.program(directory, "run.sh")

    async def run_file(self, name: str) -> Path | None:
        found = await self.installed.find(name)
        return None if found is None else found.run_file

    async def rows(self) -> list[str]:
        return [row.name for row in await self.installed.rows()]


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def golden() -> Disk:
    """The disk of golden/backends/dir-listing-meta-install.txt."""
    disk = Disk()
    disk.metadata_file("cuda12-demo-engine", (GOLDEN / "metadata-concrete.json").read_bytes())
    disk.program("cuda12-demo-engine", "run.sh")
    disk.metadata_file("demo-engine", (GOLDEN / "metadata-meta.json").read_bytes())
    disk.backend(
        "cpu-plain-tool",
        gallery_url="https://example.invalid/index.yaml",
        installed_at="2026-04-20T10:20:00+02:00",
        version="0.3.0",
        uri="oci://registry.example.invalid:5000/tools/plain:0.3.0",
    )
    disk.metadata(
        "plain-tool",
        meta_backend_for="cpu-plain-tool",
        name="plain-tool",
        gallery_url="https://example.invalid/index.yaml",
        installed_at="2026-04-20T10:20:01+02:00",
        version="0.3.0",
    )
    disk.program("bare-tool", "run.sh")
    disk.program("shipped-engine", "run.sh", system=True)
    return disk


def reply(*rows: InstalledBackend) -> bytes:
    return BackendListReply(
        backends=tuple(
            NodeBackendInfo(
                name=row.name,
                is_system=row.is_system,
                is_meta=row.is_meta,
                installed_at=row.metadata.installed_at,
                gallery_url=row.metadata.gallery_url,
                version=row.metadata.version,
                uri=row.metadata.uri,
                digest=row.metadata.digest,
            )
            for row in rows
        )
    ).to_wire()


async def test_the_golden_disk_is_listed_as_the_newest_worker_lists_it(golden: Disk) -> None:
    """G-3.2.1, G-3.2.3, G-F17."""
    assert reply(*await golden.installed.rows()) == (GOLDEN / "list-reply-newer.json").read_bytes()


async def test_the_golden_disk_with_its_alias_is_what_older_workers_listed(golden: Disk) -> None:
    """G-3.1.8, G-3.2.1."""
    names = await golden.installed.scan()
    assert reply(*(names[name] for name in sorted(names))) == (GOLDEN / "list-reply-seed.json").read_bytes()


async def test_nothing_installed_is_the_golden_empty_list(disk: Disk) -> None:
    """G-3.2.2, G-3.1.2, G-W7, N-B26: directories that are not there are empty ones."""
    assert reply(*await disk.installed.rows()) == (GOLDEN / "list-reply-empty.json").read_bytes()
    assert await disk.installed.find("anything") is None


async def test_every_golden_name_starts_the_golden_program(golden: Disk) -> None:
    """G-3.1.4, G-3.1.6, G-3.1.7, G-3.3.2."""
    started = {name: str(await golden.run_file(name)) for name in await golden.installed.scan()}
    assert started == {
        "cuda12-demo-engine": "/backends/cuda12-demo-engine/run.sh",
        "demo-engine": "/backends/cuda12-demo-engine/run.sh",
        "cpu-plain-tool": "/backends/cpu-plain-tool/run.sh",
        "plain-tool": "/backends/cpu-plain-tool/run.sh",
        "bare-tool": "/backends/bare-tool/run.sh",
        "shipped-engine": "/system/shipped-engine/run.sh",
    }


BROKEN = [b"", b"{", b"[]", b'{"name": 5}', b"\xff\xfe", b'{"name":"x"}' + b" " * (2 << 20)]


@pytest.mark.parametrize("content", BROKEN, ids=["empty", "cut", "list", "number", "bytes", "huge"])
async def test_one_broken_metadata_file_leaves_the_others_alone(
    disk: Disk, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """G-3.1.3, G-W7, N-B26: it is left out with a warning that names it."""
    good = disk.backend("good")
    disk.program("bad", "run.sh")
    disk.metadata_file("bad", content)
    with caplog.at_level(logging.WARNING):
        assert await disk.rows() == ["good"]
    assert "directory=bad" in caplog.text
    assert await disk.run_file("good") == good
    assert await disk.run_file("bad") is None


async def test_an_unreadable_metadata_file_leaves_the_others_alone(disk: Disk) -> None:
    """G-W7."""
    disk.backend("bad")
    disk.backend("good")
    disk.filesystem.chmod(BACKENDS / "bad/metadata.json", 0)
    assert await disk.rows() == ["good"]


@pytest.mark.parametrize(
    "name", ["x.install-tmp", "x.install-backup", "x.upgrade-tmp", "x.backup", ".x.1234.incoming", ".hidden"]
)
async def test_leftovers_of_interrupted_installs_are_no_backends(disk: Disk, name: str) -> None:
    """G-3.1.11, G-W18, N-B41: neither rows nor aliases."""
    disk.backend(name, alias="shared")
    disk.program(name, name)
    disk.program(name, "run.sh", system=True)
    assert await disk.rows() == []
    assert await disk.run_file("shared") is None
    assert await disk.run_file(name) is None


async def test_a_user_directory_hides_the_system_one_of_its_name(disk: Disk) -> None:
    """G-3.1.4."""
    disk.program("tool", "run.sh", system=True)
    assert [row.is_system for row in await disk.installed.rows()] == [True]
    own = disk.backend("tool")
    assert [(row.is_system, row.run_file) for row in await disk.installed.rows()] == [(False, own)]


async def test_metadata_of_the_system_is_not_read(disk: Disk) -> None:
    """G-3.1.1."""
    disk.program("tool", "run.sh", system=True)
    disk.filesystem.put(SYSTEM / "tool/metadata.json", b"rubbish")
    [row] = await disk.installed.rows()
    assert (row.is_system, row.metadata.name) == (True, "")


async def test_what_has_no_program_is_not_listed(disk: Disk) -> None:
    """G-3.1.9."""
    disk.metadata("tool", name="tool")
    disk.filesystem.put(BACKENDS / "other/run.sh/file", b"")
    disk.filesystem.put(BACKENDS / "a-file", b"")
    assert await disk.rows() == []


async def test_a_link_to_a_directory_is_no_backend(disk: Disk) -> None:
    """G-3.1.1."""
    disk.filesystem.put(Path("/elsewhere/run.sh"), b"")
    disk.filesystem.link(BACKENDS / "linked", Path("/elsewhere"))
    assert await disk.rows() == []


async def test_a_meta_backend_without_its_concrete_one_is_listed_but_not_started(disk: Disk) -> None:
    """G-3.1.6, G-3.1.9, G-3.3.1, G-W21: what is removed from disk is forgotten at once."""
    disk.metadata("tool", name="tool", meta_backend_for="cpu-tool")
    [row] = await disk.installed.rows()
    assert (row.name, row.is_meta, row.is_runnable) == ("tool", True, False)
    assert await disk.installed.find("tool") is None
    disk.backend("cpu-tool")
    assert await disk.run_file("tool") == BACKENDS / "cpu-tool/run.sh"
    await disk.filesystem.remove_tree(BACKENDS / "cpu-tool")
    assert await disk.installed.find("tool") is None


@pytest.mark.parametrize("target", ["../../etc", "/bin", ".hidden", "a/b"])
async def test_a_meta_backend_that_points_outside_is_left_out(disk: Disk, target: str) -> None:
    """G-W5, N-B7."""
    disk.metadata("tool", name="tool", meta_backend_for=target)
    assert await disk.rows() == []


async def test_a_meta_backend_goes_by_the_name_in_its_metadata(disk: Disk) -> None:
    """G-3.1.6: what an older worker installed as `gallery@name`."""
    disk.backend("cpu-tool")
    disk.metadata("localai@tool", name="localai@tool", meta_backend_for="cpu-tool")
    assert await disk.rows() == ["cpu-tool", "localai@tool"]
    assert await disk.run_file("localai@tool") == BACKENDS / "cpu-tool/run.sh"


@pytest.mark.parametrize(
    ("capability", "chosen"),
    [
        ("nvidia-cuda-13", "cuda12-tool"),
        ("nvidia", "cuda12-tool"),
        ("amd", "rocm-tool"),
        ("vulkan", "cpu-tool"),
        ("default", "cpu-tool"),
    ],
)
async def test_an_alias_starts_the_build_for_the_host(capability: str, chosen: str) -> None:
    """G-3.1.7, G-3.1.10."""
    disk = Disk(capability)
    for name in ("cpu-tool", "cuda12-tool", "cuda13-tool", "rocm-tool"):
        disk.backend(name, alias="tool")
    assert await disk.run_file("tool") == BACKENDS / chosen / "run.sh"
    assert "tool" not in await disk.rows()


async def test_an_alias_never_picks_a_build_without_a_program(disk: Disk) -> None:
    """G-3.1.5, G-3.1.9, G-W21: upstream may pick the broken one."""
    disk.metadata("cuda12-tool", name="cuda12-tool", alias="tool")
    cpu = disk.backend("cpu-tool", alias="tool")
    assert await disk.run_file("tool") == cpu


@pytest.mark.parametrize("name", ["localai@My-Tool", "my-tool", "LOCALAI@MY-TOOL", "other@my-tool"])
async def test_a_qualified_name_in_any_case_starts_the_backend(disk: Disk, name: str) -> None:
    """G-W22, N-B5: `gallery@` is stripped and letter case ignored."""
    assert await disk.run_file(name) is None
    program = disk.backend("My-Tool")
    assert await disk.run_file(name) == program


async def test_a_slash_in_a_name_reads_as_two_underscores(disk: Disk) -> None:
    """N-B5."""
    program = disk.backend("org__tool")
    assert await disk.run_file("localai@org/tool") == program


async def test_an_exact_name_goes_before_one_that_differs_in_case(disk: Disk) -> None:
    disk.backend("TOOL")
    exact = disk.backend("tool")
    assert await disk.run_file("tool") == exact


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("place", ["tool", "tool/tool"])
async def test_a_plain_program_called_like_the_backend_is_found(disk: Disk, place: str, system: bool) -> None:
    """G-3.3.2, G-3.3.3."""
    program = disk.program(*place.split("/"), system=system)
    found = await disk.installed.find("tool")
    assert found == InstalledBackend(name="tool", run_file=program, is_system=system)
    assert await disk.rows() == []


async def test_a_plain_program_is_found_after_all_that_is_listed_and_the_users_first(disk: Disk) -> None:
    """G-3.3.3."""
    disk.program("tool", "tool", system=True)
    own = disk.program("tool", "tool")
    assert await disk.run_file("tool") == own
    listed = disk.backend("cpu-tool", alias="tool")
    assert await disk.run_file("tool") == listed


UNSAFE = ["../outside", "/outside", "..", ".", "", "a/../../outside", "x@../outside", "a\0b", "..\\outside"]


@pytest.mark.parametrize("name", UNSAFE)
async def test_a_name_that_could_lead_out_starts_nothing(disk: Disk, name: str) -> None:
    """G-W5, N-B7: a backend name is one safe path component."""
    disk.filesystem.put(Path("/outside"), b"#!/bin/sh\n", mode=0o755)
    assert await disk.installed.find(name) is None


@given(st.text(alphabet="./\\@ab\0", max_size=12))
async def test_no_name_reaches_outside(name: str) -> None:
    """G-W5, N-B7."""
    disk = Disk()
    for path in ("/a", "/b/a", "/ab", "/system-a"):
        disk.filesystem.put(Path(path), b"")
    assert await disk.installed.find(name) is None


async def test_the_identity_of_a_backend_is_all_its_names(golden: Disk) -> None:
    identity = golden.installed.identity
    assert await identity("demo-engine") == {"demo-engine", "cuda12-demo-engine"}
    assert await identity("cuda12-demo-engine") == {"demo-engine", "cuda12-demo-engine"}
    assert await identity("plain-tool") == {"plain-tool"}
    assert await identity("localai@plain-tool") == {"localai@plain-tool", "plain-tool"}
    assert await identity("shipped-engine") == {"shipped-engine"}
    assert await identity("unknown") == {"unknown"}


async def test_backends_that_share_an_alias_are_not_one_backend(disk: Disk) -> None:
    disk.backend("cpu-tool", alias="tool")
    disk.backend("cuda12-tool", alias="tool")
    assert await disk.installed.identity("cpu-tool") == {"cpu-tool", "tool"}


async def test_the_identity_of_a_broken_meta_backend_is_still_known(disk: Disk) -> None:
    disk.metadata("localai@tool", name="localai@tool", meta_backend_for="gone")
    assert await disk.installed.identity("localai@tool") == {"localai@tool", "tool"}


async def test_directories_that_cannot_be_read_are_an_error_but_a_name_keeps_its_identity(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """G-3.1.2."""
    disk.filesystem.put(BACKENDS, b"a file in the way")
    with pytest.raises(FileUnreadable):
        await disk.installed.rows()
    with caplog.at_level(logging.WARNING):
        assert await disk.installed.identity("x") == {"x"}
    assert "cannot be listed" in caplog.text
