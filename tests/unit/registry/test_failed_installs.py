"""Installs that fail on real parts: a clear error, the old backend runnable, nothing half-written visible."""

import gzip
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zstandard

from localai_worker.adapters.artifacts.tree_limits import TreeLimits
from tests import archives
from tests.archives import entry, tar
from tests.registry import Handler, Image, OwnRegistry, Request
from tests.unit.test_unpack import REFUSED
from tests.upgrade_site import RUN, UpgradeSite

MIB = 1 << 20


NEW = gzip.compress(tar([RUN, entry("data", os.urandom(200_000))]))


def on(part: str, answer: Callable[[Request], object]) -> Handler:
    """A fault that answers every request for `part` of the new version."""

    def fault(request: Request) -> bool:
        is_meant = f"/{part}/" in request.path and request.command == "GET"
        if is_meant:
            answer(request)
        return is_meant

    return fault


def says(status: int, content: bytes = b"", **headers: str) -> Callable[[Request], None]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: request.answer(status, content, named)


def hangs_up(request: Request) -> None:
    request.close_connection = True


def never_ends(request: Request) -> None:
    """Bytes without end, and no word of how many there will be."""
    request.send_response(200)
    request.send_header("Connection", "close")
    request.end_headers()
    with suppress(OSError):
        while True:
            request.wfile.write(bytes(1 << 16))


@dataclass
class Case:
    """A new version that must not come to be: its layers, what the registry does to it, and what is said."""

    reason: str
    layers: Sequence[bytes] = (NEW,)
    fault: Handler | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


def second(layer: bytes) -> Sequence[bytes]:
    """The layer on top of a sound one: by then a program lies in the private directory."""
    return (gzip.compress(tar([RUN])), layer)


MANY_LAYERS = [archives.descriptor(b"%d" % number, archives.GZIP_LAYER) for number in range(600)]
HUGE = {**archives.descriptor(NEW, archives.GZIP_LAYER), "size": 1 << 60}
ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress(gzip.decompress(NEW))

CASES: dict[str, Case] = {
    "401": Case("wants a login", fault=on("manifests", says(401, WWW_Authenticate='Basic realm="x"'))),
    "401 of a blob": Case("wants a login", fault=on("blobs", says(401, WWW_Authenticate='Basic realm="x"'))),
    "403": Case("answers 403", fault=on("manifests", says(403))),
    "403 of a blob": Case("answers 403", fault=on("blobs", says(403))),
    "404": Case("has no team/backend:new", fault=on("manifests", says(404))),
    "404 of a blob": Case("answers 404", fault=on("blobs", says(404))),
    "429": Case("be left alone for 3600 s", fault=on("manifests", says(429, Retry_After="3600"))),
    "429 of a blob": Case("be left alone for 3600 s", fault=on("blobs", says(429, Retry_After="3600"))),
    "500": Case("answers 500", fault=on("manifests", says(500))),
    "503 of a blob": Case("answers 503", fault=on("blobs", says(503))),
    "cut": Case("manifests/new", fault=on("manifests", hangs_up)),
    "cut before a blob": Case("blobs/sha256:", fault=on("blobs", hangs_up)),
    "cut within a blob": Case("too early", fault=on("blobs", lambda request: request.send_cut(NEW, 0))),
    "another digest": Case("layer 1 of 1 is sha256:", fault=on("blobs", says(200, NEW[:-8] + bytes(8)))),
    "another manifest": Case(
        "should be sha256:",
        fault=on("manifests", says(200, b"{}", Docker_Content_Digest=f"sha256:{'0' * 64}")),
    ),
    "too short": Case(f"should have {len(NEW)}", fault=on("blobs", says(200, NEW[:-1]))),
    "too long": Case(f"should have {len(NEW)}", fault=on("blobs", says(200, NEW + b"x"))),
    "without end": Case("layer 1 of 1 is sha256:", fault=on("blobs", never_ends)),
    "larger than any disk": Case("are missing", fields={"layers": [HUGE]}),
    "more layers than any image": Case("an image of 600 layers", fields={"layers": MANY_LAYERS}),
    "truncated gzip": Case("layer 2 of 2 is broken gzip: it ends too early", second(NEW[:-100])),
    "truncated zstd": Case("layer 2 of 2 is broken zstd: it ends too early", second(ZSTD[:-1])),
    "bomb": Case("unpacks to more than", [gzip.compress(tar([RUN, entry("zeros", bytes(12 * MIB))]))]),
    "bomb of entries": Case(
        "more than 300 entries", second(gzip.compress(tar([entry(f"d/{n}") for n in range(400)])))
    ),
    "no program": Case("run file not found", [gzip.compress(archives.tree_tar({"x": b"1"}))]),
    "a directory as program": Case(
        "run file not found", [gzip.compress(tar([archives.directory("run.sh")]))]
    ),
    **{f"hostile: {name}": Case("", second(layer)) for name, layer in REFUSED.items()},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_a_failed_upgrade_leaves_the_old_version_runnable(
    own: OwnRegistry, tmp_path: Path, case: Case
) -> None:
    """G-F7, G-W6: whatever is wrong with the new one; source and reason are named."""
    site = UpgradeSite(tmp_path, own, limits=TreeLimits(10 * MIB, 300))
    await site.have_old_version()
    uri = own.pushed.push(Image(case.layers, fields=case.fields), "new")
    before = sorted(tmp_path.iterdir())
    if case.fault is not None:
        own.faults.append(case.fault)
    text = await site.refusal(uri)
    assert uri in text
    assert case.reason in text
    assert len(text) > len(f'installing backend from gallery: failed to download backend "{uri}": {uri}: ')
    await site.require_old_version()
    assert sorted(tmp_path.iterdir()) == before


@dataclass
class Download:
    """An archive by URL that must not be installed: its bytes, what its server does, and what is said."""

    reason: str
    content: bytes = NEW
    fault: Handler | None = None
    sha256: str = ""
    tells_sizes: bool = True


DOWNLOADS: dict[str, Download] = {
    "404": Download("answers 404", fault=on("p", says(404))),
    "429": Download("be left alone for 3600 s", fault=on("p", says(429, Retry_After="3600"))),
    "500": Download("answers 500", fault=on("p", says(500))),
    "cut": Download("too early", fault=on("p", lambda request: request.send_cut(NEW, 1000))),
    "hung up": Download("/p/new", fault=on("p", hangs_up)),
    "another hash": Download("should be sha256:000", sha256="0" * 64),
    "no hash at all": Download("which has 64 hex digits", sha256="abc"),
    "truncated": Download("the download is broken gzip: it ends too early", NEW[:-9]),
    "truncated zstd": Download("the download is broken zstd: it ends too early", ZSTD[:-1]),
    "without end": Download(
        "LOCALAI_WORKER_BACKEND_SIZE_LIMIT", fault=on("p", never_ends), tells_sizes=False
    ),
    "bomb": Download("unpacks to more than", gzip.compress(tar([RUN, entry("zeros", bytes(12 * MIB))]))),
    "a web page": Download("no readable tar archive", b"<html>sign in</html>" * 50),
    "a zip archive": Download("a zip archive", b"PK\x03\x04" + bytes(100)),
    "nothing": Download("it is empty", b""),
    "no program": Download("run file not found", gzip.compress(archives.tree_tar({"x": b"1", "y": b"2"}))),
    "hostile": Download("leaves the artifact", gzip.compress(tar([RUN, entry("../../evil", b"1")]))),
}


@pytest.mark.parametrize("download", DOWNLOADS.values(), ids=DOWNLOADS.keys())
async def test_a_failed_download_leaves_the_old_version_runnable(
    own: OwnRegistry, tmp_path: Path, download: Download
) -> None:
    """G-F7, G-F23: an archive by URL, whatever is wrong with it or its server."""
    site = UpgradeSite(tmp_path, own, limits=TreeLimits(10 * MIB, 300))
    await site.have_old_version()
    own.files["/p/new"] = download.content
    own.tells_sizes = own.knows_ranges = download.tells_sizes
    if download.fault is not None:
        own.faults.append(download.fault)
    uri = f"http://{own.host}/p/new"
    index = [{"name": "tool", "uri": uri, "sha256": download.sha256}]
    text = await site.gallery_refusal(archives.to_json(index))
    assert uri in text
    assert download.reason in text
    await site.require_old_version()
    assert not (tmp_path / "evil").exists()


LOCAL: dict[str, tuple[str, str]] = {
    "an image file that is gone": ("ocifile://{top}/gone.tar", "No such file"),
    "an image file that is none": ("ocifile://{top}/rubbish", "tar archive"),
    "an archive that is gone": ("file://{top}/gone.tgz", "No such file"),
    "an archive that is none": ("file://{top}/rubbish", "no readable tar archive"),
    "a directory without a program": ("{top}/empty", "run file not found"),
    "a directory that holds the backends": ("{top}", "the place it would be copied to"),
    "a device": ("/dev/null", "no regular file"),
}


@pytest.mark.parametrize(("uri", "reason"), LOCAL.values(), ids=LOCAL.keys())
async def test_a_bad_source_on_this_node_leaves_the_old_version_runnable(
    own: OwnRegistry, tmp_path: Path, uri: str, reason: str
) -> None:
    """G-F7."""
    site = UpgradeSite(tmp_path, own)
    await site.have_old_version()
    (tmp_path / "rubbish").write_bytes(b"rubbish" * 500)
    (tmp_path / "empty").mkdir()
    index = [{"name": "tool", "uri": uri.format(top=tmp_path)}]
    text = await site.gallery_refusal(archives.to_json(index))
    assert reason in text
    assert uri.format(top=tmp_path) in text
    await site.require_old_version()


INDEXES: dict[str, tuple[bytes, str, str]] = {
    "no YAML": (b"- name: [tool\n", "tool", "no YAML"),
    "a web page": (b"<!DOCTYPE html><html><body>sign in</body></html>", "tool", "is a YAML list of entries"),
    "nothing": (b"", "tool", "is empty"),
    "a circle": (b"- &a {name: tool, uri: *a}\n", "tool", "contains itself"),
    "nested for ever": (b"[" * 300_000, "tool", "nested deeper"),
    "a build whose name climbs": (
        b"- {name: tool, capabilities: {default: ../x}}\n- {name: ../x, uri: 'oci://r.invalid/x:1'}\n",
        "tool",
        "../x",
    ),
    "the first of two of a name": (
        b"- {name: tool, uri: 'oci://first.invalid/x:1'}\n- {name: tool, uri: 'oci://second.invalid/x:1'}\n",
        "tool",
        "first.invalid",
    ),
    "a meta backend that leads to itself": (
        b"- {name: tool, capabilities: {default: tool}}\n",
        "tool",
        "meta backends cannot be installed directly",
    ),
    "two that lead to each other": (
        b"- {name: tool, capabilities: {default: other}}\n- {name: other, capabilities: {default: tool}}\n",
        "tool",
        "meta backends cannot be installed directly",
    ),
    "a meta backend that leads nowhere": (
        b"- {name: tool, capabilities: {default: other}}\n",
        "tool",
        'no backend found with capabilities map["default":"other"]',
    ),
}


@pytest.mark.parametrize(("index", "backend", "reason"), INDEXES.values(), ids=INDEXES.keys())
async def test_a_bad_gallery_leaves_the_old_version_runnable(
    own: OwnRegistry, tmp_path: Path, index: bytes, backend: str, reason: str
) -> None:
    """G-F7, G-W32: whatever its index says."""
    site = UpgradeSite(tmp_path, own)
    await site.have_old_version()
    text = await site.gallery_refusal(index, backend)
    assert reason in text
    assert any(
        source in text for source in ("index.yaml", 'gallery "site"', "oci://first.invalid/x:1", "../x")
    )
    await site.require_old_version()


@contextmanager
def disk_of(place: Path, size_mib: int) -> Iterator[None]:
    """A file system of its own at `place`; needs the right to mount one."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk_of(tmp_path / "small", 8):
        yield tmp_path / "small"


async def test_a_disk_that_fills_up_in_the_middle_is_told_and_leaves_the_old_version(
    own: OwnRegistry, small_disk: Path
) -> None:
    site = UpgradeSite(small_disk, own)
    await site.have_old_version()
    layer = gzip.compress(tar([RUN, entry("zeros", bytes(20 * MIB))]))  # small until it is unpacked
    text = await site.refusal(own.pushed.push(Image([layer]), "new"))
    assert "No space left on device" in text
    await site.require_old_version()


async def test_a_download_that_does_not_fit_is_refused_before_its_first_byte(
    own: OwnRegistry, small_disk: Path
) -> None:
    site = UpgradeSite(small_disk, own)
    await site.have_old_version()
    uri = own.pushed.push(Image([gzip.compress(tar([RUN, entry("x", os.urandom(6 * MIB))]))]), "new")
    asked = len(own.gets("/blobs/"))
    assert "MiB are missing" in await site.refusal(uri)
    assert len(own.gets("/blobs/")) == asked
    await site.require_old_version()


async def test_the_floor_holds_while_a_payload_is_written(own: OwnRegistry, tmp_path: Path) -> None:
    """G-W6: others on this disk keep their room."""
    disk = tmp_path / "disk"
    with disk_of(disk, 100):
        site = UpgradeSite(disk, own, floor_bytes=50 * MIB)
        await site.have_old_version()
        layer = gzip.compress(tar([RUN, entry("zeros", bytes(90 * MIB))]))
        text = await site.refusal(own.pushed.push(Image([layer]), "new"))
        assert "LOCALAI_WORKER_DISK_FLOOR" in text
        await site.require_old_version()


async def test_a_read_only_backends_path_is_told(own: OwnRegistry, tmp_path: Path) -> None:
    site = UpgradeSite(tmp_path, own)
    await site.have_old_version()
    backends = tmp_path / "backends"
    bound = subprocess.run(
        ["mount", "--bind", "-o", "ro", backends, backends], capture_output=True, check=False
    )
    remounted = bound.returncode == 0
    if not remounted:
        if os.geteuid() == 0:
            pytest.skip("root writes everywhere, and nothing can be mounted")
        backends.chmod(0o500)
    try:
        text = await site.refusal(own.pushed.push(Image([NEW]), "new"))
    finally:
        with suppress(OSError):
            backends.chmod(0o755)
        if remounted:
            subprocess.run(["umount", "-l", backends], check=True)
    assert f"cannot write {backends}" in text
    await site.require_old_version()
