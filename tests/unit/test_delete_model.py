"""Deleting a model's files: what goes, what stays, what is refused; in memory and on a real disk."""

import os
from contextlib import suppress
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain.delete_model import DeleteModel, EmptyModelName, ModelFilesRemain, ModelNameEscapes
from localai_worker.domain.errors import PathEscapes, WorkerError

MODELS = Path("/node/models")


class Node:
    """Files in memory, all below the models directory or beside it."""

    def __init__(self, *names: str) -> None:
        self.filesystem = InMemoryFileSystem()
        self.models = DeleteModel(self.filesystem, MODELS)
        for name in names:
            self.filesystem.put(MODELS / name, b"1")

    @property
    def left(self) -> set[str]:
        return {os.path.relpath(path, MODELS) for path in self.filesystem.files()}


async def test_a_directory_goes_with_all_that_is_in_it_and_alone() -> None:
    """G-3.5.2, M-6.3."""
    node = Node("qwen/a.gguf", "qwen/deep/b", "qwen.yaml", "qwen2/a.gguf")
    await node.models.delete("qwen")
    assert node.left == {"qwen.yaml", "qwen2/a.gguf"}


async def test_what_came_from_an_object_store_stays_in_its_cache() -> None:
    """M-6.7: the janitor looks after it."""
    node = Node("qwen/a.gguf", "../cache/models/qwen/a.gguf", "../cache/models/qwen.gguf")
    await node.models.delete("qwen")
    assert node.left == {"../cache/models/qwen/a.gguf", "../cache/models/qwen.gguf"}


async def test_a_file_goes_with_what_lies_beside_it() -> None:
    """G-3.5.3, M-6.4, M-6.6."""
    node = Node(
        "org/m", "org/m.gguf", "org/m.gguf.sha256", "org/m2.gguf", "org/xm.gguf", "m.gguf", "org/deep/m.x"
    )
    await node.models.delete("org/m")
    assert node.left == {"org/m2.gguf", "org/xm.gguf", "m.gguf", "org/deep/m.x"}


async def test_a_directory_beside_it_is_another_model() -> None:
    node = Node("m.gguf", "m.v2/weights")
    await node.models.delete("m")
    assert node.left == {"m.v2/weights"}


@pytest.mark.parametrize("name", ["*", "m?", "[mn]", "m*", "mm.*"])
async def test_pattern_characters_stand_for_themselves(name: str) -> None:
    """G-3.5.3, M-6.4, N-B21: upstream matches other models' files with them."""
    node = Node("m", "mm.gguf", "n.yaml", f"{name}.gguf")
    await node.models.delete(name)
    assert node.left == {"m", "mm.gguf", "n.yaml"}


@pytest.mark.parametrize("name", ["absent", "org/absent", "m/below-a-file", "a\0b", "x" * 300])
async def test_nothing_there_is_a_success(name: str) -> None:
    """G-3.5.4, M-6.5."""
    node = Node("m")
    await node.models.delete(name)
    assert node.left == {"m"}


async def test_a_missing_models_directory_is_a_success() -> None:
    await Node().models.delete("m")


@pytest.mark.parametrize(
    "name", [".", "..", "/", "//", "a/..", "../secrets", "../models/m", "a/../../b", "/..", "./../../etc/x"]
)
async def test_a_name_that_leads_out_or_to_the_top_is_refused(name: str) -> None:
    """G-3.5.1, M-6.2."""
    node = Node("m", "../secrets")
    with pytest.raises(ModelNameEscapes) as caught:
        await node.models.delete(name)
    assert str(caught.value) == f'model name "{name}" escapes models directory'
    assert node.left == {"m", "../secrets"}


async def test_an_empty_name_is_refused() -> None:
    """G-3.5.1, M-6.1."""
    with pytest.raises(EmptyModelName, match="empty model name"):
        await Node("m").models.delete("")


@pytest.mark.parametrize("name", ["/org/m", "org//m", "./org/m", "org/x/../m", "org/m/"])
async def test_a_name_may_be_written_in_many_ways(name: str) -> None:
    node = Node("org/m", "x")
    await node.models.delete(name)
    assert node.left == {"x"}


async def test_a_link_goes_and_what_it_points_to_stays() -> None:
    """M-6.3, N-B21: file, directory or nothing behind it."""
    node = Node("../outside/weights")
    node.filesystem.link(MODELS / "m", MODELS.parent / "outside")
    node.filesystem.link(MODELS / "m.yaml", MODELS / "not-there")
    await node.models.delete("m")
    assert node.left == {"../outside/weights", "m.yaml"}
    await node.models.delete("m")
    assert node.left == {"../outside/weights"}


async def test_a_linked_directory_on_the_way_may_not_lead_out() -> None:
    """M-8.7, N-B21: upstream checks the path's text alone."""
    node = Node("../outside/m")
    node.filesystem.link(MODELS / "org", MODELS.parent / "outside")
    with pytest.raises(PathEscapes):
        await node.models.delete("org/m")
    assert "../outside/m" in node.left


async def test_what_cannot_be_removed_is_told_and_the_rest_goes() -> None:
    """G-3.5.4, N-B21: upstream logs it and answers success."""
    node = Node("locked/m", "locked/m.yaml")
    node.filesystem.chmod(MODELS / "locked", 0o555)
    with pytest.raises(ModelFilesRemain) as caught:
        await node.models.delete("locked/m")
    assert str(caught.value).startswith(
        "removing model files: cannot write /node/models/locked/m: permission"
    )
    assert "m.yaml" in str(caught.value)


@given(st.text(max_size=20))
async def test_nothing_outside_is_ever_touched(name: str) -> None:
    """N-B21: whatever the name."""
    node = Node("../outside", "../models2/m", "org/m")
    before = {path for path in node.left if path.startswith("..")}
    with suppress(WorkerError):
        await node.models.delete(name)
    assert before <= node.left


@pytest.mark.parametrize("name", ["m", "org/m"])
async def test_on_a_real_disk_the_same_goes(tmp_path: Path, name: str) -> None:
    """N-B21: links unlinked, neighbours kept."""
    models, outside = tmp_path / "models", tmp_path / "outside"
    holder = (models / PurePosixPath(name)).parent
    for path in (holder / "m.gguf", holder / "m.[x]", holder / "m2.gguf", outside / "weights"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
    (holder / "m").symlink_to(outside)
    (models / "out").symlink_to(outside)
    service = DeleteModel(LocalFileSystem(), models)
    await service.delete(name)
    assert (outside / "weights").exists()
    assert {path.name for path in holder.iterdir()} >= {"m.gguf", "m.[x]", "m2.gguf"}
    await service.delete(name)
    assert [path.name for path in holder.iterdir() if path.name.startswith("m")] == ["m2.gguf"]
    with pytest.raises(PathEscapes):
        await service.delete("out/weights")
    assert (outside / "weights").exists()
