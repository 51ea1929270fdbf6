"""Tokens, methods, keys: who is let in, in which order it is checked, and where no key leads."""

import pytest

from ...traversal import ATTEMPTS
from .conftest import Node

ROUTES = [
    ("HEAD", "/v1/files/models/x"),
    ("GET", "/v1/files/models/x"),
    ("PUT", "/v1/files/models/x"),
    ("POST", "/v1/files/temp"),
    ("DELETE", "/v1/files/models/x"),
    ("GET", "/v1/files/"),
    ("GET", "/v1/files"),
    ("PUT", "/v1/files/models/../../x"),
    ("GET", "/v1/files/%zz"),
    ("GET", "/v1/files-list/models/"),
    ("POST", "/v1/files-list/models/"),
    ("GET", "/v1/files-list/"),
    ("GET", "/v1/backend-logs"),
    ("POST", "/v1/backend-logs"),
    ("GET", "/v1/backend-logs/m"),
    ("GET", "/v1/backend-logs/m/ws"),
    ("GET", "/v1/backend-logs/"),
]

BAD_TOKENS = [
    b"",
    b"Bearer",
    b"Bearer wrong",
    b"bearer s3cret",
    b"BEARER s3cret",
    b"Bearer  s3cret",
    b"Bearer\ts3cret",
    b"Bearer s3cret2",
    b"Bearer s3cre",
    b"Bearer S3CRET",
    b"s3cret",
    b"Basic s3cret",
    b"Token Bearer s3cret",
    "Bearer s3crét".encode(),
    "Bearer s3crét".encode("latin-1"),
    b"Bearer \xff\xfe",
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_without_the_token_nothing_is_told_but_that(node: Node, method: str, path: str) -> None:
    """H-28: the token comes before method and key, compared as bytes: a non-ASCII one is no crash."""
    before = node.every_file()
    for token in BAD_TOKENS:
        refused = await node.client.request(
            method, "/", headers=[(b"authorization", token)], extensions={"target": path.encode()}
        )
        assert refused.status_code == 401, token
        assert method == "HEAD" or refused.text == "unauthorized\n"
        assert "www-authenticate" not in refused.headers
        assert refused.headers["x-content-type-options"] == "nosniff"
    none = await node.client.request(method, "/", extensions={"target": path.encode()})
    assert none.status_code == 401
    assert node.every_file() == before


async def test_of_two_tokens_the_first_counts(node: Node) -> None:
    right, wrong = (b"authorization", b"Bearer s3cret"), (b"authorization", b"Bearer wrong")
    extensions = {"target": b"/v1/files-list/models/"}
    assert (await node.client.get("/", headers=[right, wrong], extensions=extensions)).status_code == 200
    assert (await node.client.get("/", headers=[wrong, right], extensions=extensions)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("DELETE", "/v1/files/models/x", 405, "method not allowed\n"),
        ("PATCH", "/v1/files/", 405, "method not allowed\n"),
        ("OPTIONS", "/v1/files/models/../../x", 405, "method not allowed\n"),
        ("PUT", "/v1/files-list/models/", 405, "method not allowed\n"),
        ("HEAD", "/v1/files-list/models/", 405, ""),
        ("POST", "/v1/files/models/x", 404, "not found\n"),
        ("POST", "/v1/files/", 404, "not found\n"),
        ("POST", "/v1/files/temp/", 404, "not found\n"),
        ("GET", "/v1/files/", 400, "key is required\n"),
        ("PUT", "/v1/files/", 400, "key is required\n"),
        ("HEAD", "/v1/files/", 400, ""),
        ("GET", "/v1/files", 400, "key is required\n"),
        ("GET", "/v1/files-list/", 400, "key is required\n"),
        ("GET", "/v1/files-list", 400, "key is required\n"),
        ("GET", "/v1/files/%zz", 400, "invalid URL escape in '%zz'\n"),
        ("GET", "/v1/files/models/a%2", 400, "invalid URL escape in 'models/a%2'\n"),
        ("GET", "/v1/files/models/100%", 400, "invalid URL escape in 'models/100%'\n"),
        ("GET", "/v1/files-list/%", 400, "invalid URL escape in '%'\n"),
        ("GET", "/", 404, "404 page not found\n"),
        ("GET", "/v1/filesx/models/x", 404, "404 page not found\n"),
        ("GET", "//v1/files/models/x", 404, "404 page not found\n"),
        ("GET", "/v1//files/models/x", 404, "404 page not found\n"),
        ("GET", "/v1/./files/models/x", 404, "404 page not found\n"),
        ("GET", "/v1%2Ffiles/models/x", 404, "404 page not found\n"),
        ("GET", "/healthz/", 404, "404 page not found\n"),
        ("POST", "/v1/backend-logs", 405, "method not allowed\n"),
        ("HEAD", "/v1/backend-logs/m", 405, ""),
        ("GET", "/v1/backend-logs/", 400, "model ID required\n"),
        ("GET", "/v1/backend-logs/%zz", 400, "invalid URL escape in '%zz'\n"),
        ("GET", "/v1/backend-logsx", 404, "404 page not found\n"),
    ],
)
async def test_what_is_no_request_of_ours_is_answered_clearly_and_never_redirected(
    node: Node, method: str, path: str, status: int, text: str
) -> None:
    refused = await node.request(method, path)
    assert (refused.status_code, refused.text) == (status, text)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("models/" + "n" * 300, "300 bytes, file systems take 255"),
        ("models/x%00y", "NUL"),
        ("%00", "NUL"),
        ("models/%ff%fe", "not valid UTF-8"),
        ("models/%ed%a0%80", "not valid UTF-8"),
        ("models/" + "d/" * 3000, "the system takes 4095"),
    ],
)
async def test_a_key_no_file_can_have_is_refused_by_every_route(node: Node, key: str, reason: str) -> None:
    """H-29"""
    for method, route in (("PUT", "files"), ("GET", "files"), ("GET", "files-list")):
        refused = await node.request(method, f"/v1/{route}/{key}", content=b"x" if method == "PUT" else None)
        assert refused.status_code == 400
        assert reason in refused.text
    assert (await node.request("HEAD", f"/v1/files/{key}")).status_code == 400


async def test_no_encoding_of_a_key_leads_out_by_any_route(node: Node) -> None:
    await node.filesystem.write(node.roots.models.parent / "x", b"theirs")
    await node.filesystem.write(node.roots.models.parent / "secret", b"theirs")
    for raw, lands in ATTEMPTS:
        before = node.every_file()
        stored = await node.request("PUT", f"/v1/files/{raw}", content=b"ours")
        if lands is None:
            assert stored.status_code == 400, raw
            assert node.every_file() == before, raw
            for method, route in (("HEAD", "files"), ("GET", "files"), ("GET", "files-list")):
                refused = await node.request(method, f"/v1/{route}/{raw}")
                assert refused.status_code == 400, (method, route, raw)
            continue
        root, _, relative = lands.partition("/")
        place = getattr(node.roots, root) / relative
        assert stored.json() == {"local_path": str(place)}, raw
        assert await node.content(place) == b"ours", raw
        assert (await node.request("GET", f"/v1/files/{raw}")).content == b"ours", raw
        assert (await node.request("HEAD", f"/v1/files/{raw}")).status_code == 200, raw
        assert (await node.request("GET", f"/v1/files-list/{raw}")).status_code == 404, raw
        await node.filesystem.remove_tree(getattr(node.roots, root))
        await node.files.prepare()
    assert await node.content(node.roots.models.parent / "x") == b"theirs"


async def test_other_keys_than_temp_cannot_be_posted_under_an_encoding_of_it(node: Node) -> None:
    made = await node.request("POST", "/v1/files/%74emp")
    assert made.status_code == 200
    refused = await node.request("POST", "/v1/files/%2574emp")
    assert refused.status_code == 404
