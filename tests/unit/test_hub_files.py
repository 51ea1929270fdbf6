"""Which files of a list a snapshot is made of, and which a hostile list may not make us write."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.errors import ArtifactInvalid
from localai_worker.domain.hub_files import choose_files, file_url
from localai_worker.domain.ports.model_hub import HubFile
from localai_worker.domain.snapshot_manifest import InvalidManifest, Manifest, ManifestFile
from localai_worker.domain.snapshot_spec import SnapshotSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPEC = SnapshotSpec(repository="owner/repo")


def file(path: str, size_bytes: int = 1, **fields: Any) -> HubFile:
    return HubFile(path=path, size_bytes=size_bytes, **{"blob_id": "a" * 40, **fields})


def chosen(spec: SnapshotSpec, *paths: str) -> list[str]:
    return [each.path for each in choose_files(spec, [file(path) for path in paths])]


def test_files_are_chosen_by_pattern_and_come_in_order() -> None:
    """M-5.2."""
    paths = ("weights.bin", "README.md", "unet/config.json", "config.json", "Ä.json")
    assert chosen(SPEC, *paths) == ["README.md", "config.json", "unet/config.json", "weights.bin", "Ä.json"]
    only = SnapshotSpec(repository="owner/repo", allow=("*.json", "*.bin"), ignore=("unet/*",))
    assert chosen(only, *paths) == ["config.json", "weights.bin", "Ä.json"]


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["../x"], "leads out"),
        (["a/../../x"], "leads out"),
        (["/etc/passwd"], "leads out"),
        (["a//b"], "leads out"),
        (["./a"], "leads out"),
        (["a/"], "leads out"),
        ([""], "leads out"),
        (["a\\b"], "leads out"),
        (["a\0b"], "leads out"),
        (["\ud800"], "is no text"),
        (["x" * 256], "too long"),
        (["/".join(["x" * 200] * 16)], "too long"),
        ([".m.gguf.1.incoming"], "the worker's own"),
        (["a", "a"], "there twice"),
        (["a", "a/b"], "both a file and a directory"),
        (["a/b/c", "a"], "both a file and a directory"),
    ],
)
def test_paths_that_cannot_be_written_are_refused(paths: list[str], why: str) -> None:
    """M-5.2."""
    with pytest.raises(ArtifactInvalid, match=why):
        chosen(SPEC, *paths)


def test_what_is_not_chosen_may_have_any_path() -> None:
    assert chosen(SnapshotSpec(repository="o/r", allow=("ok",)), "../x", "ok") == ["ok"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"size_bytes": -1}, "has -1 bytes"),
        ({"size_bytes": 1 << 70}, "bytes"),
        ({"lfs_sha256": "abc"}, "LFS hash"),
        ({"blob_id": "abc"}, "blob id"),
        ({"blob_id": ""}, "has no hash"),
    ],
)
def test_content_that_nobody_could_check_is_refused(fields: dict[str, Any], why: str) -> None:
    """M-5.2."""
    with pytest.raises(ArtifactInvalid, match=why):
        choose_files(SPEC, [HubFile(path="a", **{"size_bytes": 1, "blob_id": "a" * 40, **fields})])


def test_sizes_that_no_disk_has_are_refused() -> None:
    with pytest.raises(ArtifactInvalid, match="add up"):
        choose_files(SPEC, [file("a", 1 << 60), file("b", 1 << 60)])


def test_a_repository_without_the_files_is_told() -> None:
    with pytest.raises(ArtifactInvalid, match=r"it has no files that match \*\.gguf"):
        chosen(SnapshotSpec(repository="o/r", allow=("*.gguf",)), "README.md")


@given(st.lists(st.text(max_size=12), min_size=1, max_size=5))
def test_no_path_ever_leads_out(paths: list[str]) -> None:
    """M-5.2: whatever a hub lists."""
    try:
        written = chosen(SPEC, *paths)
    except ArtifactInvalid:
        return
    for path in written:
        assert not path.startswith("/")
        assert not {"", ".", ".."} & set(path.split("/"))


def test_where_a_file_lies() -> None:
    """M-5.2."""
    url = file_url("https://hub.example", "o/r", COMMIT, "a b/c#d?.bin")
    assert url == f"https://hub.example/o/r/resolve/{COMMIT}/a%20b/c%23d%3F.bin"


MANIFEST = Manifest(
    SnapshotSpec(repository="owner/repo").found_at("https://huggingface.co", COMMIT),
    (
        ManifestFile(file("config.json", 2), "b" * 64),
        ManifestFile(file("m<1>.gguf", 9, lfs_sha256="c" * 64, xet_hash="d" * 64), "c" * 64),
    ),
)


def test_a_manifest_is_upstreams_byte_for_byte() -> None:
    """M-5.3."""
    found = MANIFEST.spec.resolved
    assert found is not None
    assert (
        MANIFEST.to_json().decode()
        == f"""{{
  "version": 1,
  "artifact": {{
    "name": "model",
    "target": "model",
    "source": {{
      "type": "huggingface",
      "repo": "owner/repo",
      "revision": "main"
    }},
    "resolved": {{
      "endpoint": "https://huggingface.co",
      "revision": "{COMMIT}",
      "cache_key": "{found.cache_key}"
    }}
  }},
  "files": [
    {{
      "path": "config.json",
      "size": 2,
      "sha256": "{"b" * 64}",
      "blob_oid": "{"a" * 40}"
    }},
    {{
      "path": "m\\u003c1\\u003e.gguf",
      "size": 9,
      "sha256": "{"c" * 64}",
      "blob_oid": "{"a" * 40}",
      "lfs_oid": "{"c" * 64}",
      "xet_hash": "{"d" * 64}"
    }}
  ]
}}
"""
    )


def test_what_is_written_can_be_read() -> None:
    """M-5.3."""
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"version": 1', '"version": 2', "version"),
        ("{", "", "no JSON"),
        ('"owner/repo"', '"owner/other"', "does not follow"),
        ('"path": "config.json"', '"path": "../config.json"', "has the path"),
        ('"size": 2', '"size": -2', "has the size"),
        ('"size": 2', '"size": true', "has the size"),
        ('"sha256": "bb', '"sha256": "xb', "has the sha256"),
        ('"files"', '"others"', "no files"),
        ('"artifact"', '"others"', "no artifact"),
    ],
)
def test_a_manifest_that_does_not_hold_is_none(old: str, new: str, why: str) -> None:
    """M-5.3."""
    content = MANIFEST.to_json().replace(old.encode(), new.encode(), 1)
    assert content != MANIFEST.to_json()
    with pytest.raises(InvalidManifest, match=why):
        Manifest.from_json(content)
