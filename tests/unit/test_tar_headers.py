"""Headers of tar archives: what is read here is what tarfile would have read, and the rest is left to it."""

import io
import random
import tarfile
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localai_worker.adapters.artifacts.forward_reader import ForwardReader
from localai_worker.adapters.artifacts.tar_headers import read_ordinary
from localai_worker.adapters.artifacts.tar_members import TarMembers
from localai_worker.domain.errors import ArtifactInvalid
from tests.archives import directory, entry, hardlink, symlink, tar

URI = "ocifile:///x.tar"
FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
KINDS = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "sym", tarfile.LNKTYPE: "hard"}

Found = tuple[str, str, int, int, float, str, bytes]


def forward(content: bytes) -> ForwardReader:
    reader = ForwardReader(io.BytesIO(content), limit_bytes=1 << 30, uri=URI)
    reader.allow(1 << 20)
    return reader


def ours(content: bytes) -> Iterator[Found]:
    members = TarMembers(forward(content), what="layer", uri=URI)
    for each in members:
        kind = KINDS.get(each.kind, "other")
        body = b"".join(members.content(each)) if kind == "file" else b""
        yield each.name.rstrip("/"), kind, each.mode, each.size_bytes, each.mtime_s, each.link, body


def theirs(content: bytes) -> Iterator[Found]:
    archive = tarfile.TarFile(fileobj=io.BytesIO(content), encoding="utf-8", errors="surrogateescape")
    for each in archive:
        kind = "file" if each.isreg() else KINDS.get(each.type, "other")
        opened = archive.extractfile(each) if kind == "file" else None
        body = opened.read() if opened is not None else b""
        yield each.name.rstrip("/"), kind, each.mode, each.size, each.mtime, each.linkname, body


def until_it_fails(found: Iterator[Found]) -> list[Found]:
    entries = []
    try:
        for each in found:
            entries.append(each)
    except (ArtifactInvalid, tarfile.TarError, ValueError, OverflowError):
        pass
    return entries


names = st.text(st.characters(blacklist_characters="\0", max_codepoint=0x2FFF), min_size=1, max_size=300)
entries = st.one_of(
    st.builds(
        entry,
        names,
        st.binary(max_size=2000),
        mode=st.integers(0, 0o7777),
        mtime=st.one_of(st.integers(0, 2**31), st.floats(0, 2**31)),
        pax_headers=st.dictionaries(st.sampled_from(["comment", "SCHILY.xattr.user.x"]), names, max_size=2),
    ),
    st.builds(directory, names),
    st.builds(symlink, names, names),
    st.builds(hardlink, names, names),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(entries, max_size=5), st.sampled_from(FORMS[1:]))
def test_entries_are_what_tarfile_makes_of_them(
    written: list[tuple[tarfile.TarInfo, bytes]], form: int
) -> None:
    content = tar(written, form=form)
    assert list(ours(content)) == list(theirs(content))


@pytest.mark.parametrize("form", FORMS)
def test_ordinary_archives_are_read_without_tarfile(form: int, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tar([entry("d" * 90 + "/" + "f" * 90, b"1"), directory("d"), symlink("s", "t")], form=form)
    body = content[: content.rindex(b"ustar") + 512 - 257]  # without the end, which tarfile tells

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(tarfile, "TarFile", refuse)
    members = iter(TarMembers(forward(body), what="layer", uri=URI))
    assert [next(members).name[:4] for _ in range(3)] == ["dddd", "d", "s"]


def fields(**headers: str) -> bytes:
    return tar([entry("x", b"1", pax_headers=headers)])


def repaired(content: bytes, at: int, replacement: bytes) -> bytes:
    """The first header changed, its checksum right."""
    header = bytearray(content[:512])
    header[at : at + len(replacement)] = replacement
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content[512:]


UNUSUAL: dict[str, bytes] = {
    "the end": bytes(1024),
    "nothing": b"",
    "half a header": tar([entry("x")])[:300],
    "a number of base 256": tar([entry("x", mtime=-5)], form=tarfile.GNU_FORMAT),
    "a wrong checksum": b"y" + tar([entry("x")])[1:],
    "a global header": tarfile.TarInfo.create_pax_global_header({"comment": "x"}) + tar([entry("x")]),
    "a size in a record": fields(size="1"),
    "a character set": fields(hdrcharset="BINARY"),
    "holes told by records": fields(**{"GNU.sparse.major": "1"}),
    "a time that is no number": fields(mtime="soon"),
    "records cut short": fields(path="y" * 200)[:700],
    "a record of nonsense": fields(path="y" * 200).replace(b"210 path=", b"x10 path=", 1),
    "two headers of records": fields(comment="1")[:1024] + fields(comment="2"),
    "records before a device": tar([entry("x", type=tarfile.CHRTYPE, pax_headers={"comment": "x"})]),
    "a header of records that is damaged": b"y" + fields(comment="1")[1:],
    "a size below zero": repaired(tar([entry("x")]), 124, b"-0000000001\0"),
    "holes of GNU's": tar([entry("x", type=tarfile.GNUTYPE_SPARSE)], form=tarfile.GNU_FORMAT),
}


@pytest.mark.parametrize("content", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_what_is_not_ordinary_is_left_to_tarfile_unread(content: bytes) -> None:
    reader = forward(content)
    assert read_ordinary(reader) is None
    assert reader.tell() == 0
    assert reader.read(len(content)) == content


def test_ordinary_and_other_entries_may_follow_one_another() -> None:
    ordinary, odd = entry("a", b"1" * 600), entry("b", b"2", mtime=-5)
    long_name = entry("n" * 200, b"3")
    content = tar([ordinary, odd, long_name, odd, ordinary], form=tarfile.GNU_FORMAT)
    assert [each[0][0] for each in ours(content)] == ["a", "b", "n", "b", "a"]
    assert list(ours(content)) == list(theirs(content))


def test_a_global_header_holds_for_all_that_follow() -> None:
    first = tar([entry("a", b"1")])[:1024]
    content = first + tarfile.TarInfo.create_pax_global_header({"mtime": "7"}) + tar([entry("b"), entry("c")])
    assert [each[4] for each in ours(content)] == [1_700_000_000, 7, 7]


WHOLE = {
    "pax": tar(
        [
            entry("a.so", b"\x7fELF" * 300, mode=0o755),
            directory("lib"),
            entry("n" * 120 + "/" + "m" * 120, b"long", pax_headers={"comment": "x"}),
            symlink("s" * 150, "t" * 150),
            hardlink("h", "a.so"),
        ]
    ),
    "gnu": tar([entry("n" * 200, b"long"), symlink("s" * 150, "t" * 150)], form=tarfile.GNU_FORMAT),
}


def is_unread(content: bytearray, at: int) -> bool:
    """Whether a number lies there that tarfile reads and nobody needs: an owner, or a time of `xLK`."""
    place, kind = at % 512, content[at - at % 512 + 156]
    return 108 <= place < 124 or 329 <= place < 345 or (kind in b"xLK" and 100 <= place < 148)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), flips=st.integers(1, 6), form=st.sampled_from(sorted(WHOLE)))
def test_damaged_headers_are_read_as_tarfile_reads_them(seed: int, flips: int, form: str) -> None:
    randomness = random.Random(seed)
    damaged = bytearray(WHOLE[form])
    for _ in range(flips):
        at = randomness.randrange(len(damaged))
        if not is_unread(damaged, at):
            damaged[at] = randomness.choice(b"\0\xff/0 =\n7xLK5")
    for at in range(0, len(damaged), 512):
        header = damaged[at : at + 512]
        if header[257:262] == b"ustar":
            header[148:156] = b" " * 8
            damaged[at + 148 : at + 156] = b"%06o\0 " % sum(header)
    found = until_it_fails(ours(bytes(damaged)))
    assert found == until_it_fails(theirs(bytes(damaged)))[: len(found)]


@pytest.mark.parametrize("pack", [bytes, lambda content: b"\xff" * len(content)], ids=["zeros", "ones"])
def test_every_byte_counts_for_the_checksum(pack: Callable[[bytes], bytes]) -> None:
    whole = repaired(tar([entry("x")]), 157, pack(bytes(100)))
    assert read_ordinary(forward(whole)) is not None
    for at in (*range(148), *range(156, 512)):
        changed = bytearray(whole)
        changed[at] ^= 1
        assert read_ordinary(forward(bytes(changed))) is None
