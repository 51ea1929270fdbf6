"""What is known of cached files: kept over lives, once they are safe."""

import json
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.cache_records import FILE_NAME, CacheRecord, CacheRecords
from localai_worker.domain.ports.filesystem import FileKind, FileStat
from localai_worker.domain.settle_files import SAVE_EVERY_S, SETTLED_TOGETHER, SettleFiles

STATE = Path("/node/state")
RECORD = CacheRecord("models/phi", "etag 3", inode=1, size_bytes=3, modified_ns=5, used_s=7.5, settled=False)


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


class Files:
    """A file on a disk that needs `disk_s` to make it safe."""

    def __init__(self, disk_s: float) -> None:
        self.disk_s = disk_s
        self.stat = FileStat(FileKind.FILE, 3, 5, 1)

    async def settle(self) -> None:
        await anyio.sleep(self.disk_s)


@pytest.fixture
def disk() -> InMemoryFileSystem:
    return InMemoryFileSystem()


async def reloaded(disk: InMemoryFileSystem) -> CacheRecords:
    records = CacheRecords(disk, STATE)
    await records.load()
    return records


async def test_settled_records_are_kept_and_nothing_else(disk: InMemoryFileSystem) -> None:
    records = CacheRecords(disk, STATE)
    names = {"plain": "a", 'quote"\\': "b", "späte/模型": "c", "lone\udcff": "d"}
    for name, version in names.items():
        records.put(name, replace(RECORD, version=version, settled=True))
    records.put("unsafe", RECORD)
    records.put("gone", replace(RECORD, settled=True))
    records.forget("gone")
    await records.save()
    again = await reloaded(disk)
    assert again.names() == tuple(names)
    for name, version in names.items():
        assert again.get(name) == replace(RECORD, version=version, settled=True)
    assert set(json.loads(disk.get(STATE / FILE_NAME) or b"")) == {"format", "files"}


async def test_what_is_replaced_by_something_unsafe_is_forgotten_on_disk(disk: InMemoryFileSystem) -> None:
    records = CacheRecords(disk, STATE)
    records.put("file", replace(RECORD, settled=True))
    await records.save()
    records.put("file", replace(RECORD, version="newer"))
    await records.save()
    assert (await reloaded(disk)).names() == ()


async def test_a_file_that_is_used_before_it_is_safe_becomes_safe_all_the_same(
    disk: InMemoryFileSystem,
) -> None:
    records = CacheRecords(disk, STATE)
    records.put("file", RECORD)
    records.used("file", 9.0)
    records.settled("file", RECORD)
    assert records.get("file") == replace(RECORD, used_s=9.0, settled=True)
    records.put("file", replace(RECORD, version="newer"))
    records.settled("file", RECORD)  # of the older one
    assert records.get("file") == replace(RECORD, version="newer")


async def test_many_files_are_settled_at_once_and_saved_every_few_seconds(disk: InMemoryFileSystem) -> None:
    records = CacheRecords(disk, STATE)
    settling = SettleFiles(records)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settling.settle_forever)
        for number in range(SETTLED_TOGETHER):
            records.put(str(number), RECORD)
            await settling.add(Files(disk_s=1.0), str(number), RECORD)
        await anyio.sleep(1.5)
        kept = [records.get(str(number)) for number in range(SETTLED_TOGETHER)]
        assert kept == [replace(RECORD, settled=True)] * SETTLED_TOGETHER
        assert disk.get(STATE / FILE_NAME) is None
        await anyio.sleep(SAVE_EVERY_S)
        assert len((await reloaded(disk)).names()) == SETTLED_TOGETHER
        tasks.cancel_scope.cancel()
