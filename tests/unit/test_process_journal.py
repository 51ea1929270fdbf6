"""The journal of processes: every record comes back as it was, and nothing in its directory is fatal."""

import logging
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain.backend import ReplicaKey
from localai_worker.domain.errors import MalformedMessage
from localai_worker.domain.file_names import private_name
from localai_worker.domain.ports.filesystem import FileSystem
from localai_worker.domain.ports.processes import ProcessIdentity
from localai_worker.domain.process_journal import JournalRecord, ProcessJournal

RECORD = JournalRecord(
    key=ReplicaKey("org/model#x", 3),
    backend="llama-cpp",
    run_file=Path("/node/backends/llama-cpp/run.sh"),
    directory_inode=77,
    port=50052,
    process=ProcessIdentity(4711, 123456, "boot/pid:[1]"),
    mark="owner.1",
    ready=True,
)


@pytest.fixture(params=["memory", "local"])
def filesystem(request: pytest.FixtureRequest) -> FileSystem:
    return InMemoryFileSystem() if request.param == "memory" else LocalFileSystem()


@pytest.fixture
def journal(filesystem: FileSystem, tmp_path: Path) -> ProcessJournal:
    if isinstance(filesystem, InMemoryFileSystem):
        filesystem.put(tmp_path / ".keep", b"")
    return ProcessJournal(filesystem, tmp_path / "processes")


async def test_records_come_back_until_they_are_forgotten(journal: ProcessJournal) -> None:
    assert await journal.read() == ()
    other = replace(RECORD, process=replace(RECORD.process, pid=12), ready=False)
    for record in (RECORD, other):
        await journal.keep(record)
    assert await journal.read() == (other, RECORD)
    await journal.keep(replace(RECORD, ready=False))
    assert await journal.read() == (other, replace(RECORD, ready=False))
    await journal.forget(12)
    await journal.forget(12)
    assert await journal.read() == (replace(RECORD, ready=False),)


async def test_records_are_for_the_workers_eyes_only(tmp_path: Path) -> None:
    journal = ProcessJournal(LocalFileSystem(), tmp_path / "state" / "processes")
    await journal.keep(RECORD)
    assert (tmp_path / "state" / "processes").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state" / "processes" / "4711.json").stat().st_mode & 0o777 == 0o600


@given(
    st.builds(
        JournalRecord,
        key=st.builds(
            ReplicaKey,
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
            st.integers(0, 2**31 - 1),
        ),
        backend=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        run_file=st.just(Path("/a b/é\n/run.sh")),
        directory_inode=st.integers(0, 2**63 - 1),
        port=st.integers(1, 65535),
        process=st.builds(
            ProcessIdentity, st.integers(2, 2**31 - 1), st.integers(0, 2**63 - 1), st.text("ab/", min_size=1)
        ),
        ready=st.booleans(),
    )
)
def test_a_record_reads_as_it_was_written(record: JournalRecord) -> None:
    assert JournalRecord.from_bytes(record.to_bytes()) == record


@given(st.binary(max_size=200))
def test_bytes_that_are_no_record_are_refused_and_nothing_else(content: bytes) -> None:
    with pytest.raises(MalformedMessage):
        JournalRecord.from_bytes(content)


@given(st.data())
def test_a_record_cut_or_changed_anywhere_is_refused_or_sound(data: st.DataObject) -> None:
    whole = RECORD.to_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = data.draw(
        st.sampled_from([whole[:at], whole[:at] + b"\0" + whole[at + 1 :], whole[:at] + whole[at + 1 :]])
    )
    try:
        record = JournalRecord.from_bytes(changed)
    except MalformedMessage:
        return
    assert 1 <= record.port <= 65535
    assert record.process.pid > 1
    assert record.run_file.is_absolute()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ('"version": 1', '"version": 2'),
        ('"port": 50052', '"port": 0'),
        ('"port": 50052', '"port": 65536'),
        ('"pid": 4711', '"pid": 1'),
        ('"pid": 4711', '"pid": -4711'),
        ('"boot": "boot/pid:[1]"', '"boot": ""'),
        ('"run_file": "/node', '"run_file": "node'),
        ('"key": "org/model#x#3"', '"key": "org/model"'),
    ],
)
def test_a_field_that_makes_no_sense_is_named(field: str, value: str) -> None:
    text = RECORD.to_bytes().decode()
    assert field in text
    with pytest.raises(MalformedMessage, match=f'field "{field.split(chr(34))[1]}"'):
        JournalRecord.from_bytes(text.replace(field, value).encode())


async def test_a_record_that_cannot_be_read_is_warned_about_and_kept_aside(
    journal: ProcessJournal, caplog: pytest.LogCaptureFixture
) -> None:
    await journal.keep(RECORD)
    broken = RECORD.to_bytes()[:40]
    await journal.filesystem.write(journal.directory / "99.json", broken)
    await journal.filesystem.write(journal.directory / "98.json", b"x" * 100_000)
    await journal.filesystem.write(journal.directory / "97.json", RECORD.to_bytes())
    await journal.filesystem.write(journal.directory / private_name("4711.json", "abc"), broken)
    await journal.filesystem.make_directory(journal.directory / "96.json")
    with caplog.at_level(logging.WARNING):
        assert await journal.read() == (RECORD,)
    names = [entry.name for entry in await journal.filesystem.list_directory(journal.directory)]
    assert names == ["4711.json", "96.json", "97.json", "98.json", "99.json.unreadable"]
    kept = await journal.filesystem.read(journal.directory / "99.json.unreadable", limit_bytes=1000)
    assert kept == broken
    assert "99.json.unreadable" in caplog.text
    assert "98.json" in caplog.text
    caplog.clear()
    assert await journal.read() == (RECORD,)
    assert "99.json" not in caplog.text


async def test_a_full_disk_stops_nothing_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    filesystem = InMemoryFileSystem(capacity_bytes=10)
    journal = ProcessJournal(filesystem, Path("/state/processes"))
    await journal.keep(RECORD)
    assert await journal.read() == ()
    assert "backend not journaled" in caplog.text
    assert "org/model#x#3" in caplog.text


async def test_a_journal_that_is_no_directory_is_told_and_is_empty(
    caplog: pytest.LogCaptureFixture,
) -> None:
    filesystem = InMemoryFileSystem()
    filesystem.put(Path("/state/processes"), b"a file")
    assert await ProcessJournal(filesystem, Path("/state/processes")).read() == ()
    assert "journal unreadable" in caplog.text


async def test_what_is_asked_for_one_process_happens_in_order(journal: ProcessJournal) -> None:
    """A record that was being written when its process ended does not come back."""
    async with anyio.create_task_group() as tasks:
        for ready in (False, True):
            tasks.start_soon(journal.keep, replace(RECORD, ready=ready))
        tasks.start_soon(journal.forget, RECORD.process.pid)
    assert await journal.read() == ()
