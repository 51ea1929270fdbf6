"""A tree packed into an image archive: what OCI tools, docker and LocalAI each read from it."""

import gzip
import hashlib
import io
import json
import os
import platform
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localai_worker.app.demo.oci_archive import ImageReferenceInvalid, pack_image
from localai_worker.domain.errors import FileUnreadable, FileUnwritable

REFERENCE = "localai-worker/minilm:latest"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "lib/empty").mkdir(parents=True)
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o700)
    (tree / "lib/data.bin").write_bytes(bytes(range(256)) * 5000)
    (tree / "lib/data.bin").chmod(0o600)
    (tree / "start").symlink_to("run.sh")
    return tree


def blobs_of(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: read_member(tar, member) for member in tar}


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    assert content is not None, f"{member.name} is not a file"
    return content.read()


def layer_of(archive: Path) -> bytes:
    blobs = blobs_of(archive)
    return gzip.decompress(blobs[json.loads(blobs["manifest.json"])[0]["Layers"][0]])


def read_blob(blobs: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    """The blob of `descriptor`, checked as a registry client checks it."""
    content = blobs["blobs/" + descriptor["digest"].replace(":", "/")]
    assert len(content) == descriptor["size"]
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor["digest"]
    return content


def test_an_oci_reader_finds_its_way_from_the_index_to_the_layer(tree: Path, tmp_path: Path) -> None:
    digest = pack_image(tree, tmp_path / "image.tar", REFERENCE)
    blobs = blobs_of(tmp_path / "image.tar")
    assert json.loads(blobs["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    [described] = json.loads(blobs["index.json"])["manifests"]
    assert described["digest"] == digest
    assert described["annotations"]["io.containerd.image.name"] == REFERENCE
    assert described["annotations"]["org.opencontainers.image.ref.name"] == "latest"
    manifest = json.loads(read_blob(blobs, described))
    assert manifest["schemaVersion"] == 2
    config = json.loads(read_blob(blobs, manifest["config"]))
    [layer] = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    plain = gzip.decompress(read_blob(blobs, layer))
    assert config["rootfs"] == {
        "type": "layers",
        "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"],
    }


def test_a_docker_reader_finds_the_same_blobs(tree: Path, tmp_path: Path) -> None:
    pack_image(tree, tmp_path / "image.tar", REFERENCE)
    blobs = blobs_of(tmp_path / "image.tar")
    [described] = json.loads(blobs["index.json"])["manifests"]
    manifest = json.loads(read_blob(blobs, described))
    assert json.loads(blobs["manifest.json"]) == [
        {
            "Config": "blobs/" + manifest["config"]["digest"].replace(":", "/"),
            "RepoTags": [REFERENCE],
            "Layers": ["blobs/" + manifest["layers"][0]["digest"].replace(":", "/")],
        }
    ]


def test_the_image_is_for_this_machine(tree: Path, tmp_path: Path) -> None:
    pack_image(tree, tmp_path / "image.tar", REFERENCE)
    blobs = blobs_of(tmp_path / "image.tar")
    config = json.loads(blobs[json.loads(blobs["manifest.json"])[0]["Config"]])
    assert config["os"] == platform.system().lower()
    go_names = {"x86_64": "amd64", "aarch64": "arm64"}
    assert config["architecture"] == go_names.get(platform.machine(), config["architecture"])
    [described] = json.loads(blobs["index.json"])["manifests"]
    assert described["platform"] == {"os": config["os"], "architecture": config["architecture"]}


def test_the_layer_holds_the_tree(tree: Path, tmp_path: Path) -> None:
    pack_image(tree, tmp_path / "image.tar", REFERENCE)
    with tarfile.open(fileobj=io.BytesIO(layer_of(tmp_path / "image.tar"))) as tar:
        members = tar.getmembers()
        assert [(member.name, stat.filemode(member.mode), member.type) for member in members] == [
            ("lib", "?rwxr-xr-x", tarfile.DIRTYPE),
            ("lib/data.bin", "?rw-r--r--", tarfile.REGTYPE),
            ("lib/empty", "?rwxr-xr-x", tarfile.DIRTYPE),
            ("run.sh", "?rwxr-xr-x", tarfile.REGTYPE),
            ("start", "?rwxrwxrwx", tarfile.SYMTYPE),
        ]
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}
        assert tar.getmember("start").linkname == "run.sh"
        assert read_member(tar, tar.getmember("lib/data.bin")) == (tree / "lib/data.bin").read_bytes()


def test_equal_trees_give_equal_bytes_whatever_their_times(tree: Path, tmp_path: Path) -> None:
    first = pack_image(tree, tmp_path / "first.tar", REFERENCE)
    for path in tree.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert pack_image(tree, tmp_path / "second.tar", REFERENCE) == first
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()


def test_another_byte_gives_another_digest(tree: Path, tmp_path: Path) -> None:
    first = pack_image(tree, tmp_path / "image.tar", REFERENCE)
    (tree / "run.sh").write_text("#!/bin/ksh\n")
    assert pack_image(tree, tmp_path / "image.tar", REFERENCE) != first


def test_an_empty_tree_is_an_image_too(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    pack_image(tmp_path / "tree", tmp_path / "image.tar", REFERENCE)
    with tarfile.open(fileobj=io.BytesIO(layer_of(tmp_path / "image.tar"))) as tar:
        assert tar.getmembers() == []


def test_a_tree_with_a_pipe_is_refused_and_the_old_archive_stays(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_text("the old one")
    os.mkfifo(tree / "lib/pipe")
    with pytest.raises(FileUnreadable) as caught:
        pack_image(tree, tmp_path / "image.tar", REFERENCE)
    assert caught.value.path == tree / "lib/pipe"
    assert (tmp_path / "image.tar").read_text() == "the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tar", "tree"]


def test_a_file_that_shrinks_meanwhile_leaves_no_part_of_an_archive(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_path = Path.open

    def truncate_and_open(self: Path, mode: str) -> Any:
        os.truncate(self, 0)
        return open_path(self, mode)

    monkeypatch.setattr(Path, "open", truncate_and_open)
    with pytest.raises(FileUnreadable, match="shrank") as caught:
        pack_image(tree, tmp_path / "image.tar", REFERENCE)
    assert caught.value.path == tree / "lib/data.bin"
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_a_missing_tree_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="nowhere: not a directory"):
        pack_image(tmp_path / "nowhere", tmp_path / "image.tar", REFERENCE)


def test_an_archive_in_a_missing_directory_is_named(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(FileUnwritable) as caught:
        pack_image(tree, tmp_path / "nowhere/image.tar", REFERENCE)
    assert caught.value.path == tmp_path / "nowhere/image.tar"


def test_a_directory_in_the_archives_place_stays(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "image.tar").mkdir()
    with pytest.raises(FileUnwritable):
        pack_image(tree, tmp_path / "image.tar", REFERENCE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tar", "tree"]


@pytest.mark.parametrize(
    "reference", ["", "minilm", "MiniLM:latest", "a b:c", "minilm:", ":latest", "a//b:c", "a:b:c d", "x:-y"]
)
def test_a_name_no_registry_takes_is_refused(reference: str, tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageReferenceInvalid, match="is not"):
        pack_image(tree, tmp_path / "image.tar", reference)
    assert not (tmp_path / "image.tar").exists()


@pytest.mark.parametrize("reference", ["minilm:1", "Registry.local:5000/team/minilm:v1.2", "a/b__c/d-e:T_1"])
def test_a_name_every_registry_takes_is_kept(reference: str, tree: Path, tmp_path: Path) -> None:
    pack_image(tree, tmp_path / "image.tar", reference)
    [named] = json.loads(blobs_of(tmp_path / "image.tar")["manifest.json"])
    assert named["RepoTags"] == [reference]


file_names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) <= 200
)


@settings(max_examples=25)  # each syncs a file to disk
@given(files=st.dictionaries(file_names, st.binary(max_size=300), max_size=5))
def test_any_file_name_survives(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    scratch = tmp_path_factory.mktemp("names")
    (scratch / "tree").mkdir()
    for name, content in files.items():
        (scratch / "tree" / name).write_bytes(content)
    pack_image(scratch / "tree", scratch / "image.tar", REFERENCE)
    with tarfile.open(fileobj=io.BytesIO(layer_of(scratch / "image.tar"))) as tar:
        assert {member.name: read_member(tar, member) for member in tar} == files
