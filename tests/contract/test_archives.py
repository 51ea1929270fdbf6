"""Every `ArchiveUnpacker` keeps these promises: the one in memory and the one of this machine's disk."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from localai_worker.adapters.archives.local import LocalArchives
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.memory.archives import InMemoryArchives
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain.errors import ArtifactInvalid, NoSpace
from localai_worker.domain.ports.archives import ArchiveUnpacker, is_archive
from localai_worker.domain.ports.filesystem import FileSystem, RootedPath


def tar_of(files: Mapping[str, str], mode: str = "w") -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode=mode) as tar:  # type: ignore[call-overload]
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return output.getvalue()


def zip_of(files: Mapping[str, str]) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as file:
        for name, text in files.items():
            file.writestr(zipfile.ZipInfo(name), text)
    return output.getvalue()


def zst_of(files: Mapping[str, str]) -> bytes:
    return pytest.importorskip("zstandard").ZstdCompressor().compress(tar_of(files))  # type: ignore[no-any-return]


@dataclass
class Stage:
    """An unpacker, its file system, and a way to write an archive of files."""

    unpacker: ArchiveUnpacker
    filesystem: FileSystem
    archive: RootedPath
    pack: Callable[[Mapping[str, str]], bytes]

    async def offer(self, files: Mapping[str, str]) -> None:
        await self.put(self.pack(files))

    async def put(self, content: bytes) -> None:
        await self.filesystem.make_directory(self.archive.path.parent)
        await self.filesystem.write(self.archive.path, content)

    async def files(self) -> dict[str, str]:
        """What lies beside the archive, by name."""
        top = RootedPath(self.archive.root, PurePosixPath("sub"))
        names = await self.filesystem.walk_files(top) or ()
        return {
            str(name): (await self.filesystem.read(top.path / name, limit_bytes=9999)).decode()
            for name in names
            if name.name != self.archive.path.name
        }


KINDS: dict[str, Callable[[Mapping[str, str]], bytes]] = {
    "x.tar": tar_of,
    "x.tar.gz": lambda files: tar_of(files, "w:gz"),
    "x.tgz": lambda files: tar_of(files, "w:gz"),
    "x.tar.bz2": lambda files: tar_of(files, "w:bz2"),
    "x.tar.xz": lambda files: tar_of(files, "w:xz"),
    "x.tar.zst": zst_of,
    "x.zip": zip_of,
}


@pytest.fixture(params=["memory", *KINDS])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    if request.param == "memory":
        memory = InMemoryFileSystem()
        place = RootedPath(Path("/models"), PurePosixPath("sub/x.zip"))
        return Stage(InMemoryArchives(memory), memory, place, lambda files: json.dumps(dict(files)).encode())
    place = RootedPath(tmp_path, PurePosixPath("sub") / request.param)
    return Stage(LocalArchives(), LocalFileSystem(), place, KINDS[request.param])


async def test_what_is_in_an_archive_lies_beside_it_and_the_archive_stays(stage: Stage) -> None:
    """M-4.2.8."""
    await stage.offer({"a.txt": "1", "deep/er/b.txt": "2"})
    await stage.unpacker.unpack(stage.archive)
    assert await stage.files() == {"a.txt": "1", "deep/er/b.txt": "2"}
    assert await stage.filesystem.stat(stage.archive.path) is not None


async def test_what_is_there_is_replaced_and_the_rest_stays(stage: Stage) -> None:
    await stage.offer({"a.txt": "new", "deep/b.txt": "2"})
    for name in ("a.txt", "deep/old.txt"):
        await stage.filesystem.make_directory((stage.archive.path.parent / name).parent)
        await stage.filesystem.write(stage.archive.path.parent / name, b"old")
    await stage.unpacker.unpack(stage.archive)
    assert await stage.files() == {"a.txt": "new", "deep/b.txt": "2", "deep/old.txt": "old"}


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/etc/out.txt", ".."])
async def test_one_name_that_leads_out_and_nothing_is_unpacked(stage: Stage, name: str) -> None:
    """M-4.2.8."""
    await stage.offer({"good.txt": "1", name: "2"})
    with pytest.raises(ArtifactInvalid):
        await stage.unpacker.unpack(stage.archive)
    assert await stage.files() == {}


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\3\4rubbish", b"\x1f\x8brubbish", b"[1]"])
async def test_what_is_no_archive_is_invalid(stage: Stage, content: bytes) -> None:
    await stage.put(content)
    with pytest.raises(ArtifactInvalid):
        await stage.unpacker.unpack(stage.archive)
    assert await stage.files() == {}


def entry(name: str, kind: bytes, link: str = "") -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        good = tarfile.TarInfo("good.txt")
        tar.addfile(good, io.BytesIO())
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        tar.addfile(info)
    return output.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        entry("link", tarfile.SYMTYPE, "good.txt"),
        entry("link", tarfile.SYMTYPE, "/etc/passwd"),
        entry("hard", tarfile.LNKTYPE, "../../etc/passwd"),
        entry("hard", tarfile.LNKTYPE, "missing"),
        entry("pipe", tarfile.FIFOTYPE),
        entry("device", tarfile.CHRTYPE),
        entry("device", tarfile.BLKTYPE),
    ],
)
async def test_links_and_devices_refuse_the_whole_archive(tmp_path: Path, content: bytes) -> None:
    """M-4.2.8."""
    stage = Stage(
        LocalArchives(), LocalFileSystem(), RootedPath(tmp_path, PurePosixPath("sub/x.tar")), tar_of
    )
    await stage.put(content)
    with pytest.raises(ArtifactInvalid):
        await stage.unpacker.unpack(stage.archive)
    assert await stage.files() == {}


async def test_a_hard_link_inside_is_a_copy(tmp_path: Path) -> None:
    stage = Stage(
        LocalArchives(), LocalFileSystem(), RootedPath(tmp_path, PurePosixPath("sub/x.tar")), tar_of
    )
    await stage.put(entry("hard", tarfile.LNKTYPE, "good.txt"))
    await stage.unpacker.unpack(stage.archive)
    assert await stage.files() == {"good.txt": "", "hard": ""}


async def test_limits_hold(tmp_path: Path) -> None:
    place = RootedPath(tmp_path, PurePosixPath("sub/x.tar.gz"))
    for unpacker in (LocalArchives(most_entries=2), LocalArchives(most_bytes=2)):
        stage = Stage(unpacker, LocalFileSystem(), place, KINDS["x.tar.gz"])
        await stage.offer({"a": "1", "b": "1", "c": "1"})
        with pytest.raises(ArtifactInvalid, match="it holds more than"):
            await unpacker.unpack(place)
        assert await stage.files() == {}


async def test_some_of_the_disk_stays_free(tmp_path: Path) -> None:
    place = RootedPath(tmp_path, PurePosixPath("sub/x.tar.gz"))
    unpacker = LocalArchives(floor_bytes=1 << 62)
    stage = Stage(unpacker, LocalFileSystem(), place, KINDS["x.tar.gz"])
    await stage.offer({"a": "1"})
    with pytest.raises(NoSpace, match="LOCALAI_WORKER_DISK_FLOOR"):
        await unpacker.unpack(place)
    assert await stage.files() == {}


@pytest.mark.parametrize("name", ["x.zip", "X.ZIP", "a/b.tar.gz", "b.tgz", "c.tar"])
def test_archives_are_known_by_their_names(name: str) -> None:
    """M-4.2.8."""
    assert is_archive(name)


@pytest.mark.parametrize("name", ["x.gguf", "zip", "x.gz", "x.zip.part", "x.tar.gz.sha256"])
def test_other_files_are_not(name: str) -> None:
    assert not is_archive(name)
