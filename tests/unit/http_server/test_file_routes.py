"""What the routes do with good requests, and how they answer bad ones."""

import hashlib
import os
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from anyio import create_task_group

from .conftest import Node

MIB = 1024 * 1024


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def put(node: Node, key: str, content: bytes, **headers: str) -> None:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    stored = await node.request("PUT", f"/v1/files/{quote(key)}", headers=sent, content=content)
    assert stored.status_code == 200, stored.text


async def in_pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def test_twenty_megabytes_come_and_go_unchanged(node: Node) -> None:
    content = os.urandom(20 * MIB)
    await put(node, "models/m/big.gguf", content, x_content_sha256=sha256(content).upper())
    probed = await node.request("HEAD", "/v1/files/models/m/big.gguf")
    assert probed.headers["x-content-sha256"] == sha256(content)
    assert probed.headers["x-file-size"] == str(20 * MIB)
    fetched = await node.request("GET", "/v1/files/models/m/big.gguf")
    assert fetched.status_code == 200
    assert fetched.headers["content-length"] == str(20 * MIB)
    assert fetched.headers["content-type"] == "application/octet-stream"
    assert fetched.content == content


@pytest.mark.parametrize("chunked", [True, False])
async def test_an_empty_file_comes_with_or_without_a_length(node: Node, chunked: bool) -> None:
    content = in_pieces(b"", 1) if chunked else b""
    stored = await node.request("PUT", "/v1/files/models/empty", content=content)
    assert stored.status_code == 200
    assert await node.content(node.roots.models / "empty") == b""
    probed = await node.request("HEAD", "/v1/files/models/empty")
    assert (probed.headers["x-file-size"], probed.headers["x-content-sha256"]) == ("0", sha256(b""))
    fetched = await node.request("GET", "/v1/files/models/empty")
    assert (fetched.status_code, fetched.content, fetched.headers["content-length"]) == (200, b"", "0")


async def test_a_chunked_body_needs_no_length(node: Node) -> None:
    content = os.urandom(3 * MIB)
    stored = await node.request("PUT", "/v1/files/data/x", content=in_pieces(content, 100_000))
    assert stored.status_code == 200
    assert await node.content(node.roots.data / "x") == content


@pytest.mark.parametrize("name", ["a b", "ü/日本語.gguf", "50%", "a#b?c", "a+b", "'\"<>&", "x\ty", "é" * 127])
async def test_names_of_any_script_and_sign_keep_their_bytes(node: Node, name: str) -> None:
    key = f"models/{name}"
    await put(node, key, b"content")
    path = node.roots.models / name
    assert await node.content(path) == b"content"
    stored = await node.request("PUT", f"/v1/files/{quote(key, safe='')}", content=b"again")
    assert stored.json() == {"local_path": str(path)}
    probed = await node.request("HEAD", f"/v1/files/{quote(key)}")
    local_paths = [value for header, value in probed.headers.raw if header.lower() == b"x-local-path"]
    # Raw UTF-8; a path no header can carry is left out, and the stager learns it from the PUT.
    assert local_paths == ([] if "\t" in name else [os.fsencode(path)])
    listed = await node.request("GET", "/v1/files-list/models/")
    assert listed.json() == {"files": [name]}


@pytest.mark.parametrize("name", ["line\nbreak", "cr\rlf\n", "trailing ", "bell\a"])
async def test_a_path_no_header_can_carry_is_left_out_of_the_probe(node: Node, name: str) -> None:
    await put(node, f"models/{name}", b"content")
    probed = await node.request("HEAD", f"/v1/files/{quote('models/' + name)}")
    assert probed.status_code == 200
    assert probed.headers["x-content-sha256"] == sha256(b"content")
    assert "x-local-path" not in probed.headers


async def test_what_is_missing_is_not_found(node: Node) -> None:
    probed = await node.request("HEAD", "/v1/files/models/absent")
    assert (probed.status_code, probed.content) == (404, b"")
    fetched = await node.request("GET", "/v1/files/models/absent")
    assert (fetched.status_code, fetched.text) == (404, "file not found\n")
    listed = await node.request("GET", "/v1/files-list/models/absent")
    assert (listed.status_code, listed.text) == (404, "directory not found\n")
    await put(node, "models/file", b"1")
    below = await node.request("GET", "/v1/files/models/file/below")
    assert below.status_code == 404
    listed = await node.request("GET", "/v1/files-list/models/file")
    assert listed.status_code == 404


@pytest.mark.parametrize("method", ["HEAD", "GET", "PUT"])
@pytest.mark.parametrize("key", ["models/d", "models/d/", "models/", "models/d/..", "/"])
async def test_a_directory_is_no_file(node: Node, method: str, key: str) -> None:
    """H-13: upstream serves it as an empty file."""
    await put(node, "models/d/file", b"kept")
    refused = await node.request(method, f"/v1/files/{key}", content=b"x" if method == "PUT" else None)
    assert refused.status_code == 400
    assert method == "HEAD" or "is a directory" in refused.text
    assert await node.content(node.roots.models / "d/file") == b"kept"


async def test_a_file_where_a_directory_should_be_is_a_server_error(node: Node) -> None:
    await put(node, "models/file", b"kept")
    refused = await node.request("PUT", "/v1/files/models/file/below", content=b"x")
    assert refused.status_code == 500
    assert refused.text.startswith("cannot write")
    assert await node.content(node.roots.models / "file") == b"kept"


async def test_a_directory_where_a_hash_should_be_costs_nothing(node: Node) -> None:
    await put(node, "models/x.sha256x/y", b"1")
    await node.filesystem.make_directory(node.roots.models / "x.sha256")
    await put(node, "models/x", b"content")
    probed = await node.request("HEAD", "/v1/files/models/x")
    assert probed.headers["x-content-sha256"] == sha256(b"content")


async def test_an_empty_directory_has_an_empty_list(node: Node) -> None:
    listed = await node.request("GET", "/v1/files-list/data/")
    assert (listed.status_code, listed.text) == (200, '{"files": []}\n')


async def test_base_directories_exist_before_the_first_request(node: Node) -> None:
    """H-9: a fresh upstream worker answers 400 to every model."""
    for directory in (node.roots.models, node.roots.data, node.roots.staging):
        assert await node.filesystem.list_directory(directory) == ()
    probed = await node.request("HEAD", "/v1/files/models/m/x")
    assert probed.status_code == 404


@pytest.mark.parametrize(
    ("headers", "content", "status", "text"),
    [
        ({"x-content-sha256": "0" * 64}, b"0123456789", 400, "sha256 mismatch: expected 000"),
        ({"x-content-sha256": "123"}, b"0123456789", 400, "is not 64 hex digits"),
        ({"content-range": "bytes 9-0/10"}, b"0123456789", 400, "invalid Content-Range"),
        ({"content-range": "bytes 1-9/10"}, b"123456789", 416, "does not match current file size 0"),
        ({"content-range": "bytes 0-9/10", "x-content-sha256": "0" * 64}, b"0123456789", 400, "sha256 mism"),
        ({"content-range": "lines 0-9/10"}, b"0123456789", 400, "invalid Content-Range"),
    ],
)
async def test_a_body_that_is_not_what_was_announced_is_refused_and_the_old_file_stays(
    node: Node, headers: dict[str, str], content: bytes, status: int, text: str
) -> None:
    """H-1, S-K12"""
    await put(node, "models/x", b"old")
    before = node.every_file()
    for body in (content, in_pieces(content, 3)):
        refused = await node.request("PUT", "/v1/files/models/x", headers=headers, content=body)
        assert refused.status_code == status
        assert text in refused.text
        assert refused.headers["content-type"] == "text/plain; charset=utf-8"
        assert refused.headers["x-content-type-options"] == "nosniff"
        assert refused.text.endswith("\n")
    assert await node.content(node.roots.models / "x") == b"old"
    assert node.every_file() == before


async def test_an_empty_range_header_counts_as_absent(node: Node) -> None:
    await put(node, "models/x", b"content", content_range="")
    assert await node.content(node.roots.models / "x") == b"content"


async def test_uploads_of_one_key_at_the_same_time_leave_one_whole_file(node: Node) -> None:
    """S-K12"""
    contents = [bytes([number]) * (MIB + number) for number in range(5)]
    async with create_task_group() as tasks:
        for content in contents:
            tasks.start_soon(put, node, "models/x", content)
    stored = await node.content(node.roots.models / "x")
    assert stored in contents
    probed = await node.request("HEAD", "/v1/files/models/x")
    assert probed.headers["x-content-sha256"] == sha256(stored)
    assert node.every_file() == [node.roots.models / "x", node.roots.models / "x.sha256"]


async def test_an_upload_over_the_limit_is_refused_before_and_while_it_comes(node: Node) -> None:
    """H-11"""
    node.files.max_upload_bytes = 1000
    await put(node, "models/x", b"o" * 1000)
    for body in (b"n" * 1001, in_pieces(b"n" * 1001, 100)):
        refused = await node.request("PUT", "/v1/files/models/x", content=body)
        assert refused.status_code == 413
        assert "this worker takes 1000" in refused.text
    assert await node.content(node.roots.models / "x") == b"o" * 1000


async def test_a_forged_hash_is_refused(node: Node) -> None:
    """H-7"""
    await put(node, "models/x", b"content")
    refused = await node.request("PUT", "/v1/files/models/x.sha256", content=b"0" * 64)
    assert refused.status_code == 400
    probed = await node.request("HEAD", "/v1/files/models/x")
    assert probed.headers["x-content-sha256"] == sha256(b"content")
    await put(node, "models/x.sha256", sha256(b"content").encode())


async def test_a_probe_hashes_a_file_it_has_not_seen_once(node: Node) -> None:
    """H-6, S-K13, H-682fb2718: the second probe is answered at once."""
    await node.filesystem.write(node.roots.models / "x", b"put there by an operator")
    for _ in range(2):
        probed = await node.request("HEAD", "/v1/files/models/x")
        assert probed.headers["x-content-sha256"] == sha256(b"put there by an operator")
    assert await node.content(node.roots.models / "x.sha256") == sha256(b"put there by an operator").encode()


async def test_a_link_out_of_the_directory_is_refused_by_every_route(node: Node) -> None:
    """H-8"""
    outside = node.roots.models.parent / "outside"
    await node.filesystem.make_directory(outside)
    await node.filesystem.write(outside / "secret", b"theirs")
    node.link(node.roots.models / "out", outside)
    node.link(node.roots.models / "dangling", outside / "new")
    for key in ("out/secret", "out/new", "dangling"):
        for method in ("HEAD", "GET", "PUT"):
            refused = await node.request(
                method, f"/v1/files/models/{key}", content=b"x" if method == "PUT" else None
            )
            assert refused.status_code == 400
    refused = await node.request("GET", "/v1/files-list/models/out")
    assert refused.status_code == 400
    assert refused.text == f'path "{node.roots.models}/out" is outside allowed directory\n'
    assert [entry.name for entry in await node.filesystem.list_directory(outside)] == ["secret"]
    assert await node.content(outside / "secret") == b"theirs"


async def test_a_temporary_that_cannot_be_made_is_a_server_error(node: Node) -> None:
    await node.filesystem.remove_tree(node.roots.staging)
    await node.filesystem.write(node.roots.staging, b"in the way")
    refused = await node.request("POST", "/v1/files/temp")
    assert refused.status_code == 500
    assert refused.text.startswith("cannot write")


async def test_names_that_are_not_utf_8_are_listed_without_breaking_the_list(node: Node) -> None:
    """H-29"""
    await node.filesystem.write(node.roots.models / os.fsdecode(b"caf\xe9"), b"1")
    listed = await node.request("GET", "/v1/files-list/models/")
    assert listed.status_code == 200
    assert listed.json() == {"files": ["caf\udce9"]}
