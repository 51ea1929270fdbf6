"""Uploads in pieces over the routes: headers, codes and bodies."""

import hashlib
import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from .conftest import Node

CONTENT = b"0123456789"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = "/v1/files/models/x"
MIB = 1024 * 1024


async def in_pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def test_bytes_after_the_range_are_ignored(node: Node) -> None:
    for body in (CONTENT + b"!", in_pieces(CONTENT + b"!!!!", 3)):
        stored = await node.request("PUT", PATH, headers={"content-range": "bytes 0-9/10"}, content=body)
        assert stored.status_code == 200
        assert await node.content(node.roots.models / "x") == CONTENT


async def test_a_short_body_is_refused_and_what_came_is_kept(node: Node) -> None:
    headers = {"content-range": "bytes 0-9/10", "x-content-sha256": SHA256}
    refused = await node.request("PUT", PATH, headers=headers, content=CONTENT[:6])
    assert (refused.status_code, refused.text) == (400, "short body: got 6 expected 10\n")
    probed = await node.request("HEAD", PATH)
    assert (probed.headers["x-file-size"], probed.headers["content-length"]) == ("6", "6")
    assert probed.headers["x-target-sha256"] == SHA256
    assert probed.headers["accept-ranges"] == "bytes"
    headers = {**headers, "content-range": "bytes 6-9/10"}
    stored = await node.request("PUT", PATH, headers=headers, content=CONTENT[6:])
    assert stored.status_code == 200
    assert await node.content(node.roots.models / "x") == CONTENT


async def test_parts_are_in_no_list_and_no_download(node: Node) -> None:
    headers = {"content-range": "bytes 0-4/10", "x-content-sha256": SHA256}
    await node.request("PUT", PATH, headers=headers, content=CONTENT[:5])
    assert (await node.request("GET", PATH)).status_code == 404
    assert (await node.request("GET", "/v1/files-list/models/")).json() == {"files": []}


async def test_a_whole_upload_between_pieces_makes_the_next_one_start_anew(node: Node) -> None:
    headers = {"content-range": "bytes 0-4/10", "x-content-sha256": SHA256}
    await node.request("PUT", PATH, headers=headers, content=CONTENT[:5])
    assert (await node.request("PUT", PATH, content=b"other")).status_code == 200
    assert "x-target-sha256" not in (await node.request("HEAD", PATH)).headers
    headers["content-range"] = "bytes 5-9/10"
    refused = await node.request("PUT", PATH, headers=headers, content=CONTENT[5:])
    assert refused.status_code == 416
    assert refused.headers["x-file-size"] == "0"
    assert await node.content(node.roots.models / "x") == b"other"


@pytest.mark.parametrize("size", [10, 3 * MIB])
async def test_a_download_may_be_of_one_range(node: Node, size: int) -> None:
    content = os.urandom(size)
    await node.request("PUT", PATH, content=content)
    for header, start, end in (
        ("bytes=0-3", 0, 3),
        ("bytes=4-", 4, size - 1),
        ("bytes=-3", size - 3, size - 1),
        (f"bytes=-{size * 2}", 0, size - 1),
        (f"bytes=5-{size * 2}", 5, size - 1),
        (f"BYTES = {size - 1}-{size - 1}", size - 1, size - 1),
    ):
        fetched = await node.request("GET", PATH, headers={"range": header})
        assert fetched.status_code == 206
        assert fetched.content == content[start : end + 1]
        assert fetched.headers["content-range"] == f"bytes {start}-{end}/{size}"
        assert fetched.headers["content-length"] == str(end + 1 - start)
        assert fetched.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0"])
async def test_a_range_behind_the_end_is_refused_with_the_size(node: Node, header: str) -> None:
    await node.request("PUT", PATH, content=CONTENT)
    refused = await node.request("GET", PATH, headers={"range": header})
    assert (refused.status_code, refused.text) == (416, "the file has 10 bytes\n")
    assert refused.headers["content-range"] == "bytes */10"


@pytest.mark.parametrize(
    "header",
    ["", "bytes", "bytes=", "bytes=-", "bytes=x-3", "bytes=4-3", "bytes=0-1,3-4", "lines=0-3", "0-3"],
)
async def test_what_is_no_single_range_of_bytes_gets_the_whole_file(node: Node, header: str) -> None:
    await node.request("PUT", PATH, content=CONTENT)
    fetched = await node.request("GET", PATH, headers={"range": header})
    assert (fetched.status_code, fetched.content) == (200, CONTENT)
    assert fetched.headers["accept-ranges"] == "bytes"


async def test_a_range_of_a_version_we_do_not_name_gets_the_whole_file(node: Node) -> None:
    await node.request("PUT", PATH, content=CONTENT)
    headers = {"range": "bytes=0-3", "if-range": '"v1"'}
    fetched = await node.request("GET", PATH, headers=headers)
    assert (fetched.status_code, fetched.content) == (200, CONTENT)


numbers = st.one_of(
    st.integers(-3, 12).map(str),
    st.sampled_from(["", "0x1", "1e1", "1.0", "+1", " 1", "01", "9" * 19, "9" * 25, "*"]),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    unit=st.sampled_from(["bytes ", "Bytes ", "bytes=", "bytes  ", "lines ", ""]),
    start=numbers,
    end=numbers,
    total=numbers,
    declared=st.sampled_from([None, SHA256, SHA256.upper(), "0" * 64, "0" * 63, "x" * 64, ""]),
    size=st.integers(0, 12),
)
@example(unit="bytes ", start="0", end="9", total="10", declared=SHA256, size=10)
@example(unit="bytes ", start="5", end="9", total="10", declared=None, size=5)
async def test_whatever_the_headers_say_the_answer_is_clear_and_the_old_file_whole(
    node: Node, unit: str, start: str, end: str, total: str, declared: str | None, size: int
) -> None:
    await node.request("PUT", PATH, content=b"old")
    span = f"{unit}{start}-{end}/{total}".strip()
    headers = {"content-range": span} | ({} if declared is None else {"x-content-sha256": declared})
    answer = await node.request("PUT", PATH, headers=headers, content=CONTENT[:size].ljust(size, b"!"))
    assert answer.status_code in {200, 308, 400, 416, 507}, answer.text
    stored = await node.content(node.roots.models / "x")
    assert stored == b"old" or answer.status_code == 200
    if answer.status_code == 200:
        assert declared is None or declared.lower() in {hashlib.sha256(stored).hexdigest(), ""}
    elif answer.status_code in {400, 507}:
        assert answer.text.endswith("\n")
    # Nothing but the file, its hash, and at most one part.
    assert len(node.every_file()) <= 3
