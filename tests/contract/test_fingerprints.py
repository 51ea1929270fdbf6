"""Every `FileSystem` tells whether a directory has changed, and which one it is."""

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from localai_worker.adapters.filesystem import fingerprints
from localai_worker.adapters.filesystem.fingerprints import Fingerprints
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.domain.errors import FileUnreadable
from tests.contract.test_filesystem import Case, case, permissions_bind

__all__ = ["case"]

FILES = ("metadata.json", "run.sh")


async def seen_to_change(case: Case, before: object) -> bool:
    """Whether another fingerprint comes; what others change shows within a moment."""
    with anyio.move_on_after(10):
        while await case.filesystem.fingerprint(case.top / "b", files=FILES) == before:
            await anyio.sleep(0.02)
        return True
    return False


async def test_what_does_not_change_has_one_fingerprint(case: Case) -> None:
    case.put(case.top / "b" / "x" / "run.sh", b"1")
    before = await case.filesystem.fingerprint(case.top / "b", files=FILES)
    await anyio.sleep(0.15)  # beyond what is remembered
    assert await case.filesystem.fingerprint(case.top / "b", files=FILES) == before
    assert before is not None
    assert await case.filesystem.fingerprint(case.top / "missing", files=FILES) is None


@pytest.mark.parametrize("name", ["y/run.sh", "x/run.sh", "x/metadata.json", "plain"])
async def test_what_others_change_shows(case: Case, name: str) -> None:
    case.put(case.top / "b" / "x" / "run.sh", b"1")
    before = await case.filesystem.fingerprint(case.top / "b", files=FILES)
    case.put(case.top / "b" / name, b"22")
    assert await seen_to_change(case, before)


async def test_what_is_linked_to_counts(case: Case) -> None:
    case.put(case.top / "elsewhere", b"1")
    case.link(case.top / "b" / "x" / "run.sh", case.top / "elsewhere")
    before = await case.filesystem.fingerprint(case.top / "b", files=FILES)
    case.put(case.top / "elsewhere", b"22")
    assert await seen_to_change(case, before)


async def test_own_changes_show_at_once(case: Case) -> None:
    directory = case.top / "b"
    case.put(directory / "x" / "run.sh", b"1")
    taken = [await case.filesystem.fingerprint(directory, files=FILES)]
    await case.filesystem.write(directory / "x" / "metadata.json", b"{}")
    taken.append(await case.filesystem.fingerprint(directory, files=FILES))
    new = await case.filesystem.private_directory(directory / "x")
    await case.filesystem.replace_directory(new, directory / "x")
    taken.append(await case.filesystem.fingerprint(directory, files=FILES))
    await case.filesystem.remove_tree(directory / "x")
    taken.append(await case.filesystem.fingerprint(directory, files=FILES))
    assert len(set(taken)) == 4


async def test_what_is_in_the_making_does_not_show(tmp_path: Path) -> None:
    """While an install unpacks its files every list would be read anew."""
    filesystem = LocalFileSystem()
    place = tmp_path / "b" / "x"
    place.mkdir(parents=True)
    new = await filesystem.private_directory(place)
    before = await filesystem.fingerprint(place.parent, files=FILES, fresh=True)
    (new / "run.sh").write_bytes(b"1")
    another = await filesystem.private_directory(place)
    assert await filesystem.fingerprint(place.parent, files=FILES, fresh=True) == before
    await filesystem.replace_directory(another, place)
    assert await filesystem.fingerprint(place.parent, files=FILES, fresh=True) != before


async def test_a_fresh_look_misses_nothing(case: Case) -> None:
    taken = []
    for number in range(3):
        case.put(case.top / "b" / f"x{number}" / "run.sh", b"1")
        taken.append(await case.filesystem.fingerprint(case.top / "b", files=FILES, fresh=True))
    assert len(set(taken)) == 3


async def test_a_directory_is_told_from_its_successor(case: Case) -> None:
    place = case.top / "b" / "x"
    case.put(place / "run.sh", b"1")
    first = await case.filesystem.directory_inode(place)
    assert first == await case.filesystem.directory_inode(place) > 0
    new = await case.filesystem.private_directory(place)
    await case.filesystem.replace_directory(new, place)
    second = await case.filesystem.directory_inode(place)
    assert second not in {0, first}
    await case.filesystem.remove_tree(place)
    assert await case.filesystem.directory_inode(place) == 0
    case.put(case.top / "file", b"")
    assert await case.filesystem.directory_inode(case.top / "file") == 0


async def test_what_is_not_ours_to_read_says_so(case: Case) -> None:
    if not permissions_bind(case):
        pytest.skip("root may read everything")
    case.put(case.top / "b" / "x" / "run.sh", b"1")
    case.forbid(case.top / "b")
    with pytest.raises(FileUnreadable):
        await case.filesystem.fingerprint(case.top / "b", files=FILES)


async def test_a_change_during_a_look_is_not_remembered_as_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks after a change of ours must see it, also when a look was under way."""
    known = Fingerprints(clock=lambda: 0.0)
    take: Callable[..., object] = fingerprints._take

    def take_and_change(path: Path, files: tuple[str, ...]) -> object:
        value = take(path, files)
        known.forget()
        return value

    monkeypatch.setattr(fingerprints, "_take", take_and_change)
    before = await known.of(tmp_path, ())
    (tmp_path / "new").touch()
    assert await known.of(tmp_path, ()) != before
