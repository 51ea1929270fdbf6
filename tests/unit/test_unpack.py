"""Layers unpacked into a tree: what is honoured, what is refused, and that nothing ever gets out."""

import errno
import gzip
import io
import os
import random
import shutil
import stat
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localai_worker.adapters.artifacts.layers import apply_layer
from localai_worker.adapters.artifacts.tree import TreeBuilder
from localai_worker.adapters.artifacts.tree_limits import TreeLimits
from localai_worker.adapters.artifacts.writeback import begin_writeback
from localai_worker.domain.errors import ArtifactInvalid, FileUnwritable, NoSpace, WorkerError
from tests.archives import digest_of, directory, entry, hardlink, symlink, tar

URI = "ocifile:///hostile.tar"
SECRET = b"outside"


class Arena:
    """A directory to unpack into, next to things that must never change."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = top / "root"
        self.root.mkdir()
        self.outside = top / "outside"
        (self.outside / "sub").mkdir(parents=True)
        (self.outside / "secret").write_bytes(SECRET)
        (self.outside / "secret").chmod(0o640)
        for path in (self.outside / "secret", self.outside / "sub", self.outside):
            os.utime(path, (1_000_000_000, 1_000_000_000))
        self._before = self._picture()

    def unpack(self, *layers: bytes, limits: TreeLimits | None = None) -> TreeBuilder:
        tree = TreeBuilder(self.root, URI, limits or TreeLimits(), check_cancelled=lambda: None)
        for layer in layers:
            apply_layer(io.BytesIO(layer), tree, what="layer", uri=URI)
        tree.finish()
        return tree

    def names(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}

    def nothing_got_out(self) -> bool:
        return self._picture() == self._before

    def _picture(self) -> object:
        paths = [self.outside, *sorted(self.outside.rglob("*"))]
        status = [path.lstat() for path in paths]
        seen = [(each.st_mode, each.st_size, each.st_mtime, each.st_nlink) for each in status]
        return (
            sorted(self.top.iterdir()),
            paths,
            seen,
            (self.outside / "secret").read_bytes(),
        )


@pytest.fixture
def arena(tmp_path: Path) -> Arena:
    return Arena(tmp_path)


def mangled(content: bytes, at: int, replacement: bytes) -> bytes:
    """`content` with some bytes of its first header replaced, the checksum made right again."""
    header = bytearray(content[:512])
    header[at : at + len(replacement)] = replacement
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content[512:]


OUT = "../outside"
DEEP = "/".join(["d" * 200] * 30)
GLOBAL_HEADERS = b"".join(tarfile.TarInfo.create_pax_global_header({f"k{n}": "v"}) for n in range(200))
PAX_NAME = tar([entry("x" * 300, b"1")])

REFUSED: dict[str, bytes] = {
    "a name that climbs": tar([entry(f"{OUT}/secret", b"gotcha")]),
    "a name that climbs from within": tar([entry(f"a/b/../../{OUT}/secret", b"gotcha")]),
    "a directory that climbs": tar([directory("../evil")]),
    "a symlink whose own name climbs": tar([symlink(f"{OUT}/link", "/etc/passwd")]),
    "a hard link whose own name climbs": tar([entry("a", b"1"), hardlink(f"{OUT}/hard", "a")]),
    "a hard link to a name that climbs": tar([hardlink("hard", f"{OUT}/secret")]),
    "a hard link to an absolute file outside": tar([hardlink("hard", "/etc/passwd")]),
    "a hard link through a symlink that leads out": tar([symlink("s", OUT), hardlink("hard", "s/secret")]),
    "a hard link to nothing": tar([hardlink("hard", "missing")]),
    "a hard link to a directory": tar([directory("d"), hardlink("hard", "d")]),
    "a hard link to the tree itself": tar([hardlink("hard", ".")]),
    "a hard link that replaces the directory of its target": tar(
        [directory("d"), entry("d/f", b"1"), hardlink("d", "d/f")]
    ),
    "a character device": tar([entry("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)]),
    "a block device": tar([entry("dev/sda", type=tarfile.BLKTYPE, devmajor=8, devminor=0)]),
    "a pipe": tar([entry("pipe", type=tarfile.FIFOTYPE)]),
    "an entry of unknown type": tar([entry("odd", type=b"Z")]),
    "a whiteout that climbs": tar([entry(f"{OUT}/.wh.secret")]),
    "a whiteout of the parent": tar([entry(".wh...")]),
    "a whiteout of nothing": tar([entry("a/.wh.")]),
    "an opaque marker that climbs": tar([entry(f"{OUT}/.wh..wh..opq")]),
    "a file in place of the whole tree": tar([entry(".", b"1")]),
    "a symlink in place of the whole tree": tar([symlink("./", OUT)]),
    "a symlink without a target": tar([symlink("s", "")]),
    "a file below a file": tar([entry("a", b"1"), entry("a/b", b"2")]),
    "symlinks in a circle as a parent": tar([symlink("a", "b"), symlink("b", "a"), entry("a/x", b"1")]),
    "a symlink to itself as a parent": tar([symlink("a", "a"), entry("a/x", b"1")]),
    "a name with a NUL": tar([entry("x", b"1", pax_headers={"path": "bad\0name"})]),
    "a name longer than file systems allow": tar([entry("n" * 256, b"1")]),
    "a name of a megabyte": tar([entry("a/" * 400_000 + "x", b"1")]),
    "directories too deep to remove": tar([entry("d/" * 1500 + "x", b"1")]),
    "directories too deep, one by one": tar([directory("/".join(["d"] * n)) for n in range(1, 300)]),
    "directories too deep, through links": tar(
        [entry("d/" * 200 + "x"), symlink("s", "d/" * 200), entry("s/" + "d/" * 200 + "x", b"1")]
    ),
    "a path longer than the system allows": tar([entry(f"{DEEP}/x", b"1")]),
    "a stream that ends within a file": tar([entry("x", b"1" * 100_000)])[:50_000],
    "a stream that ends within a header": tar([entry("x"), entry("y")])[:700],
    "a broken second header": tar([entry("x")])[:512] + b"rubbish!" * 64 + bytes(1024),
    "no tar at all": b"<html>404 not found</html>" * 100,
    "nothing": b"",
    "a size below zero": mangled(tar([entry("x")]), 124, b"\xff" * 12),
    "a size beyond all bounds": mangled(tar([entry("x")]), 124, b"\x80" + b"\x7f" * 11),
    "a long name of gigabytes": mangled(
        tar([entry("x", type=tarfile.GNUTYPE_LONGNAME)]), 124, b"70000000000\0"
    ),
    "pax headers without end": tar([entry("x", type=tarfile.XHDTYPE)] * 3000),
    "a pax size below zero": tar([entry("x", b"1", pax_headers={"size": "-512"})]),
    "a pax header of nonsense": PAX_NAME.replace(b"310 path=", b"000 path=", 1),
    "global headers without end": GLOBAL_HEADERS + tar([entry("x")]),
    "broken gzip": gzip.compress(tar([entry("x", b"1" * 100)]))[:-20],
    "gzip with a wrong checksum": gzip.compress(tar([entry("x")]))[:-8] + bytes(8),
    "gzip with rubbish behind it": gzip.compress(tar([entry("x")])) + b"rubbish",
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(100),
}


@pytest.mark.parametrize("layer", REFUSED.values(), ids=REFUSED.keys())
def test_a_hostile_or_broken_layer_is_refused_and_nothing_gets_out(arena: Arena, layer: bytes) -> None:
    """G-W6: a safe extractor."""
    with pytest.raises(ArtifactInvalid) as caught:
        arena.unpack(layer)
    assert caught.value.uri == URI
    assert arena.nothing_got_out()
    shutil.rmtree(arena.root)  # whatever it left can be removed


# Odd, but legitimate in images: taken, and contained.
CONTAINED: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], str]] = {
    "an absolute name": ([entry("/etc/motd", b"in")], "etc/motd"),
    "many slashes and dots": ([entry("//.//./a///b", b"in")], "a/b"),
    "a file below a symlink that climbs": ([symlink("s", OUT), entry("s/secret", b"in")], "outside/secret"),
    "a file below an absolute symlink": (
        [symlink("lib", "/usr/lib"), entry("lib/a.so", b"in")],
        "usr/lib/a.so",
    ),
    "a file below a chain of symlinks": (
        [symlink("a", "b"), symlink("b", "/c/../../d"), entry("a/x", b"in")],
        "d/x",
    ),
    "a directory below a symlink that climbs": (
        [symlink("s", OUT), directory("s/sub", mtime=5), entry("s/sub/x", b"in")],
        "outside/sub/x",
    ),
    "a file in place of a symlink that leads out": (
        [symlink("x", f"{OUT}/secret"), entry("x", b"in")],
        "x",
    ),
    "a directory in place of a symlink that leads out": (
        [symlink("d", OUT), directory("d"), entry("d/secret", b"in")],
        "d/secret",
    ),
    "a hard link below a symlink that climbs": (
        [entry("f", b"in"), symlink("s", OUT), hardlink("s/secret", "f")],
        "outside/secret",
    ),
    "a name of bytes that are no UTF-8": ([entry("caf\udce9", b"in")], "caf\udce9"),
    "a time no file system knows": ([entry("x", b"in", pax_headers={"mtime": "inf"})], "x"),
    "a time that is none": ([entry("x", b"in", pax_headers={"mtime": "nan"})], "x"),
    "a time before time": ([entry("x", b"in", pax_headers={"mtime": "-99999999999999"})], "x"),
}


@pytest.mark.parametrize(("entries", "lands_at"), CONTAINED.values(), ids=CONTAINED.keys())
def test_an_odd_layer_is_contained(
    arena: Arena, entries: list[tuple[tarfile.TarInfo, bytes]], lands_at: str
) -> None:
    arena.unpack(tar(entries))
    assert (arena.root / lands_at).read_bytes() == b"in"
    assert not (arena.root / lands_at).is_symlink()
    assert arena.nothing_got_out()


def test_a_directory_swapped_for_a_link_does_not_carry_its_time_outside(arena: Arena) -> None:
    arena.unpack(tar([directory("d"), directory("d/sub", mtime=5)]), tar([symlink("d", OUT)]))
    assert (arena.root / "d").readlink() == Path(OUT)
    assert arena.nothing_got_out()


def test_a_hard_link_to_a_symlink_is_that_link_and_not_what_it_leads_to(arena: Arena) -> None:
    arena.unpack(tar([symlink("s", f"{OUT}/secret"), hardlink("h", "s")]))
    assert (arena.root / "h").readlink() == Path(f"{OUT}/secret")
    assert arena.nothing_got_out()


@pytest.mark.parametrize("put", [directory("a"), symlink("a", "c")], ids=["directory", "other link"])
def test_a_link_once_followed_is_not_followed_after_its_replacement(
    arena: Arena, put: tuple[tarfile.TarInfo, bytes]
) -> None:
    arena.unpack(tar([symlink("a", "b"), entry("a/x", b"1"), put, entry("a/y", b"2")]))
    place = "a/y" if put[0].isdir() else "c/y"
    assert arena.names() - {"c"} == {"a", "b", "b/x", place}


def test_whiteouts_through_a_link_remove_nothing_outside(arena: Arena) -> None:
    arena.unpack(
        tar([symlink("s", OUT)]), tar([entry("s/.wh.secret"), entry("s/.wh..wh..opq"), entry(".wh.s")])
    )
    assert not (arena.root / "s").is_symlink()
    assert arena.nothing_got_out()


def test_symlinks_keep_their_text_wherever_they_point(arena: Arena) -> None:
    """G-2.6.11: python environments link to the system's interpreter by an absolute path."""
    arena.unpack(tar([symlink("python", "/usr/bin/python3"), symlink("up", "../../x")]))
    assert (arena.root / "python").readlink() == Path("/usr/bin/python3")
    assert (arena.root / "up").readlink() == Path("../../x")


def test_permission_bits_stay_and_privileges_go(arena: Arena) -> None:
    """G-2.6.11, G-W6: setuid bits are not honoured."""
    arena.unpack(
        tar(
            [
                entry("suid", b"1", mode=0o6755),
                entry("readonly", b"1", mode=0o444),
                entry("run.sh", b"1", mode=0o750),
                directory("closed", mode=0o3555),
                entry("closed/inside", b"1"),
            ]
        )
    )
    modes = {name: stat.S_IMODE((arena.root / name).stat().st_mode) for name in arena.names()}
    assert modes == {
        "suid": 0o755,
        "readonly": 0o444,
        "run.sh": 0o750,
        "closed": 0o755,  # its owner can still replace the tree
        "closed/inside": 0o644,
    }


def test_times_of_files_links_and_directories_are_restored(arena: Arena) -> None:
    """G-2.6.11."""
    arena.unpack(
        tar(
            [
                directory("d", mtime=1_000_000_001),
                entry("d/f", b"1", mtime=1_000_000_002),
                symlink("d/s", "f"),
            ]
        )
    )
    times = {name: (arena.root / name).lstat().st_mtime for name in arena.names()}
    assert times == {"d": 1_000_000_001, "d/f": 1_000_000_002, "d/s": 1_700_000_000}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("length", [99, 100, 101, 150, 155, 156, 240])
def test_long_names_are_read_whole_wherever_their_slashes_fall(arena: Arena, form: int, length: int) -> None:
    """A header has room for 100 bytes of a name, and what is cut there may end with a slash."""
    name = ("d" * 49 + "/") * 5
    name = name[:length].rstrip("/") + "/f"
    arena.unpack(tar([entry(name, b"content")], form=form))
    assert (arena.root / name).read_bytes() == b"content"


def test_a_directory_of_the_oldest_form_is_one(arena: Arena) -> None:
    arena.unpack(tar([entry("d/", type=tarfile.AREGTYPE), entry("d/x", b"1")], form=tarfile.USTAR_FORMAT))
    assert arena.names() == {"d", "d/x"}


def test_the_directory_itself_keeps_its_mode(arena: Arena) -> None:
    """G-2.6.11."""
    arena.root.chmod(0o750)
    arena.unpack(tar([directory(".", mode=0o777), entry("./run.sh", b"1")]))
    assert stat.S_IMODE(arena.root.stat().st_mode) == 0o750


def test_hard_links_share_one_file(arena: Arena) -> None:
    """G-2.6.11."""
    arena.unpack(tar([entry("a", b"1"), hardlink("b", "a"), hardlink("c", "./b"), hardlink("a", "c")]))
    assert (arena.root / "a").stat().st_nlink == 3


def test_a_file_of_gnu_holes_is_filled_with_zeros(arena: Arena, tmp_path: Path) -> None:
    header = bytearray(
        tar([entry("holes", b"DATA" * 128, type=tarfile.GNUTYPE_SPARSE)], form=tarfile.GNU_FORMAT)
    )
    header[386 : 386 + 24] = b"%011o\0%011o\0" % (4096, 512)  # the only piece: 512 bytes at 4096
    header[483:495] = b"%011o\0" % 8192  # the real size
    arena.unpack(mangled(bytes(header), 0, b"holes"))
    content = (arena.root / "holes").read_bytes()
    assert (len(content), content.strip(b"\0"), content[4096:4100]) == (8192, b"DATA" * 128, b"DATA")


def test_later_layers_replace_and_hide_what_earlier_ones_put(arena: Arena) -> None:
    """G-2.6.9."""
    arena.unpack(
        tar([entry("keep", b"1"), entry("gone", b"1"), entry("changed", b"old"), entry("dir/a", b"1")]),
        tar([entry(".wh.gone"), entry("changed", b"new"), entry("dir/.wh.a"), entry("dir/b", b"2")]),
    )
    assert arena.names() == {"keep", "changed", "dir", "dir/b"}
    assert (arena.root / "changed").read_bytes() == b"new"


@pytest.mark.parametrize("marker_first", [True, False])
def test_a_whiteout_spares_what_its_own_layer_put_there(arena: Arena, marker_first: bool) -> None:
    upper = [entry("d/new", b"2"), entry("d/sub/new", b"2")]
    markers = [entry("d/.wh..wh..opq"), entry(".wh.x"), entry("x/fresh", b"2")]
    arena.unpack(
        tar([entry("d/old", b"1"), entry("d/sub/old", b"1"), entry("x/stale", b"1")]),
        tar(markers + upper if marker_first else upper + markers[::-1]),
    )
    assert arena.names() == {"d", "d/new", "d/sub", "d/sub/new", "x", "x/fresh"}


def test_a_whiteout_hides_what_any_earlier_layer_put(arena: Arena) -> None:
    arena.unpack(tar([entry("a", b"1")]), tar([entry("d/b", b"2")]), tar([entry(".wh.d"), entry(".wh.a")]))
    assert arena.names() == set()


def test_an_opaque_marker_at_the_top_hides_all_earlier_layers(arena: Arena) -> None:
    arena.unpack(tar([entry("a/b", b"1"), entry("c", b"1")]), tar([entry(".wh..wh..opq"), entry("n", b"2")]))
    assert arena.names() == {"n"}


def test_whiteouts_of_absent_files_and_aufs_notes_mean_nothing(arena: Arena) -> None:
    arena.unpack(
        tar([entry("a", b"1")]), tar([entry(".wh.b"), entry(".wh..wh.plnk"), entry("a/.wh..wh..opq")])
    )
    assert arena.names() == {"a"}


@pytest.mark.parametrize(
    ("below", "above"),
    [
        ([directory("x"), entry("x/y", b"1")], [entry("x", b"new")]),
        ([entry("x", b"1")], [directory("x"), entry("x/y", b"new")]),
        ([symlink("x", "elsewhere")], [entry("x", b"new")]),
        ([directory("x"), entry("x/y", b"1")], [symlink("x", "z"), entry("z", b"new")]),
        ([entry("a", b"1"), hardlink("x", "a")], [entry("x", b"new")]),
    ],
    ids=[
        "file over directory",
        "directory over file",
        "file over link",
        "link over directory",
        "over hard link",
    ],
)
def test_whatever_a_later_layer_has_takes_the_place(
    arena: Arena,
    below: Sequence[tuple[tarfile.TarInfo, bytes]],
    above: Sequence[tuple[tarfile.TarInfo, bytes]],
) -> None:
    arena.unpack(tar(below), tar(above))
    place = arena.root / "x"
    content = (place / "y" if place.is_dir() else place).read_bytes()
    assert content == b"new"
    assert not (arena.root / "a").exists() or (arena.root / "a").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("limits", "layer"),
    [
        (TreeLimits(total_bytes=10_000), tar([entry("a", bytes(6000)), entry("b", bytes(6000))])),
        (TreeLimits(total_bytes=10_000), gzip.compress(tar([entry("bomb", bytes(10_000_000))]))),
        (TreeLimits(total_bytes=10_000), gzip.compress(tar([entry(".wh.x", bytes(10_000_000))]))),
        (TreeLimits(total_bytes=100_000), gzip.compress(tar([entry("a")]) + bytes(10_000_000))),
        (TreeLimits(entries=10), tar([entry(str(number)) for number in range(11)])),
        (TreeLimits(entries=10), tar([entry(f".wh.{number}") for number in range(11)])),
    ],
    ids=["bytes", "gzip bomb", "whiteout with content", "padding", "files", "whiteouts"],
)
def test_a_layer_that_outgrows_its_limits_is_stopped(arena: Arena, limits: TreeLimits, layer: bytes) -> None:
    """G-W6: total size and number of entries are limited."""
    with pytest.raises(ArtifactInvalid, match="more than 10"):
        arena.unpack(layer, limits=limits)
    assert sum(path.stat().st_size for path in arena.root.rglob("*") if path.is_file()) <= limits.total_bytes


def test_limits_hold_for_all_layers_together(arena: Arena) -> None:
    layers = [tar([entry("same", bytes(4000))])] * 3
    with pytest.raises(ArtifactInvalid, match="10240 bytes"):
        arena.unpack(*layers, limits=TreeLimits(total_bytes=10_240))


def test_gzip_of_several_members_with_padding_is_read_to_its_end(arena: Arena) -> None:
    plain = tar([entry("a", bytes(100_000)), entry("b", b"end")])
    parts = [plain[at : at + 10_000] for at in range(0, len(plain), 10_000)]
    arena.unpack(b"".join(gzip.compress(part) + bytes(3) for part in parts))
    assert (arena.root / "b").read_bytes() == b"end"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_layer_is_verified_as_stored_and_as_unpacked(arena: Arena, pack: Callable[[bytes], bytes]) -> None:
    """G-2.6.8."""
    plain = tar([entry("a", b"1")])
    stored = pack(plain)
    tree = TreeBuilder(arena.root, URI, TreeLimits(), check_cancelled=lambda: None)

    def apply(**digests: str) -> None:
        apply_layer(io.BytesIO(stored), tree, what="layer 1", uri=URI, **digests)

    apply(digest=digest_of(stored), diff_id=digest_of(plain))
    with pytest.raises(ArtifactInvalid, match=f"layer 1 is {digest_of(stored)}, should be"):
        apply(digest=digest_of(b"other"))
    with pytest.raises(ArtifactInvalid, match="content of layer 1"):
        apply(diff_id=digest_of(b"other"))
    with pytest.raises(ArtifactInvalid, match="sha256 and sha512"):
        apply(digest="md5:00")


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EIO, FileUnwritable),
        (errno.EROFS, FileUnwritable),
    ],
)
def test_what_the_file_system_refuses_is_no_fault_of_the_artifact(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, number: int, wanted: type[WorkerError]
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.write", refuse)
    with pytest.raises(wanted) as caught:
        arena.unpack(tar([entry("a/b", b"1")]))
    assert os.strerror(number) in str(caught.value)


def test_a_cancellation_is_noticed_between_chunks_and_entries(arena: Arena) -> None:
    class Cancelled(BaseException):
        pass

    calls = 0

    def cancel_at_ten() -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise Cancelled

    tree = TreeBuilder(arena.root, URI, TreeLimits(), cancel_at_ten)
    with pytest.raises(Cancelled):
        apply_layer(io.BytesIO(tar([entry("big", bytes(64 << 20))])), tree, what="layer", uri=URI)
    assert tree.size_bytes < 16 << 20


def test_large_files_are_on_their_way_to_the_disk_before_the_end(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def note(descriptor: int) -> None:
        begin_writeback(descriptor)
        begun.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr("localai_worker.adapters.artifacts.tree.begin_writeback", note)
    arena.unpack(tar([entry("small", bytes(1000)), entry("large", bytes(10 << 20))]))
    assert begun[0] < 2 << 20
    assert begun[-1] > 8 << 20


HONEST = tar(
    [
        directory("lib"),
        entry("lib/a.so", b"\x7fELF" * 300, mode=0o755),
        symlink("lib/b.so", "a.so"),
        hardlink("c", "lib/a.so"),
        entry("n" * 120 + "/" + "m" * 120, b"long", pax_headers={"comment": "x"}),
        entry("lib/.wh.gone"),
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), flips=st.integers(1, 20), fix=st.booleans())
def test_no_damage_makes_it_fail_otherwise_than_foreseen(
    tmp_path_factory: pytest.TempPathFactory, seed: int, flips: int, fix: bool
) -> None:
    randomness = random.Random(seed)
    damaged = bytearray(HONEST)
    for _ in range(flips):
        damaged[randomness.randrange(len(damaged))] = randomness.choice([0, 0xFF, randomness.randrange(256)])
    if fix:
        for at in range(0, len(damaged), 512):
            header = damaged[at : at + 512]
            if header[257:262] == b"ustar":
                header[148:156] = b" " * 8
                damaged[at + 148 : at + 156] = b"%06o\0 " % sum(header)
    arena = Arena(tmp_path_factory.mktemp("fuzz"))
    with suppress(WorkerError):
        arena.unpack(bytes(damaged))
    assert arena.nothing_got_out()


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system like CIFS, which refuses links of both kinds."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(os, "link", refuse)


LINKED = [
    symlink("first", "second"),
    symlink("second", "lib/real"),
    symlink("dir", "lib"),
    entry("lib/real", b"content", mode=0o755),
    hardlink("hard", "lib/real"),
]


@pytest.mark.usefixtures("no_links")
def test_a_file_system_without_links_gets_copies(arena: Arena) -> None:
    """G-2.6.12, G-F12: a CIFS volume takes backends too."""
    arena.unpack(tar(LINKED))
    assert arena.names() == {"first", "second", "dir", "dir/real", "lib", "lib/real", "hard"}
    assert not any(path.is_symlink() for path in arena.root.rglob("*"))
    assert (arena.root / "first").read_bytes() == (arena.root / "hard").read_bytes() == b"content"
    assert stat.S_IMODE((arena.root / "first").stat().st_mode) == 0o755


@pytest.mark.usefixtures("no_links")
def test_links_out_or_nowhere_or_in_circles_are_left_out_of_the_copies(
    arena: Arena, caplog: pytest.LogCaptureFixture
) -> None:
    """G-2.6.12, G-F12."""
    links = {
        "out": f"{OUT}/secret",
        "abs": "/etc/passwd",
        "nowhere": "missing",
        "a": "b",
        "b": "a",
        "top": ".",
    }
    arena.unpack(tar([entry("run.sh", b"1"), *(symlink(*link) for link in links.items())]))
    assert arena.names() == {"run.sh"}
    assert caplog.text.count("link left out") == len(links)
    assert arena.nothing_got_out()


@pytest.mark.usefixtures("no_links")
def test_copies_count_against_the_limits(arena: Arena) -> None:
    """G-F12, G-W6: links to links to directories would grow without end."""
    entries = [entry("d0/f", bytes(1000))]
    for number in range(1, 20):
        entries += [symlink(f"d{number}/{side}", f"../d{number - 1}") for side in ("a", "b")]
    with pytest.raises(ArtifactInvalid, match="unpacks to more than"):
        arena.unpack(tar(entries), limits=TreeLimits(total_bytes=200_000))


LINKED_DIRECTORIES = {
    "wide": [
        directory("d0"),
        *(symlink(f"d{n}/{side}", f"../d{n - 1}") for n in range(1, 40) for side in "ab"),
    ],
    "deep": [directory("d" + "/d" * 200), symlink("e/" * 200 + "link", "/d")],
}


@pytest.mark.parametrize("entries", LINKED_DIRECTORIES.values(), ids=LINKED_DIRECTORIES.keys())
@pytest.mark.usefixtures("no_links")
def test_copies_of_directories_end(arena: Arena, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """G-F12, G-W6: without a byte in them they would take every inode, or be too deep to be removed."""
    with pytest.raises(ArtifactInvalid, match="more than"):
        arena.unpack(tar(entries), limits=TreeLimits(entries=500))
    shutil.rmtree(arena.root)


@pytest.mark.usefixtures("no_links")
def test_a_link_that_a_later_layer_hides_or_replaces_is_not_copied(arena: Arena) -> None:
    arena.unpack(
        tar([entry("real", b"1"), symlink("gone", "real"), symlink("file", "real")]),
        tar([entry(".wh.gone"), entry("file", b"2")]),
    )
    assert arena.names() == {"real", "file"}
    assert (arena.root / "file").read_bytes() == b"2"
