"""What a frontend stages before LoadModel and what it tells the backend then."""

from pathlib import Path
from typing import Any

import pytest

from localai_worker.app.simulator.failures import SimulationError
from localai_worker.app.simulator.model_options import ModelSpec, ModelStaging


class Node:
    """Takes what is sent to it; refuses keys that end with one of `refused`."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.keys: list[str] = []

    async def send(self, source: Path, key: str) -> str:
        assert source.is_file()
        if key.endswith(self.refused or ("\0",)):
            raise SimulationError(f"refused {key}")
        self.keys.append(key)
        return f"/node/{key}"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("phi/phi.bin", "mm.bin", "a.lora", "vae.bin", "v.onnx", "v.onnx.json", "hf/x/w.bin"):
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "outside.bin").write_text("outside")
    return tmp_path / "models"


async def stage(models: Path, node: Node, *, directories: bool = True, **options: Any) -> dict[str, object]:
    spec = ModelSpec(name="org/m", backend="b", options=options)
    return await ModelStaging(models, spec, node.send, directories=directories).stage()


async def test_files_are_staged_in_order_below_the_models_own_directory(models: Path) -> None:
    """The model file first; ModelPath is what is left of its path without the model's name."""
    node = Node()
    told = await stage(
        models, node, Tokenizer="v.onnx", MMProj="mm.bin", ModelFile="phi/phi.bin", Model="phi/phi.bin"
    )
    assert node.keys == [
        f"models/org/m/{name}" for name in ("phi/phi.bin", "mm.bin", "v.onnx", "v.onnx.json")
    ]
    assert told["ModelFile"] == "/node/models/org/m/phi/phi.bin"
    assert told["ModelPath"] == "/node/models/org/m"
    assert told["Model"] == "phi/phi.bin"


async def test_what_the_frontend_does_not_have_is_cleared_or_dropped(models: Path) -> None:
    node = Node()
    told = await stage(models, node, ModelFile="no.bin", MMProj="no", LoraAdapters=["no", "a.lora"])
    assert (told["ModelFile"], told["MMProj"]) == ("", "")
    assert told["LoraAdapters"] == ["/node/models/org/m/a.lora"]


async def test_options_that_name_files_bring_them_and_stay_as_they_are(models: Path) -> None:
    node = Node()
    pairs = ["vae:vae.bin", "steps:20", "odd"]
    told = await stage(models, node, Options=pairs, Overrides=["clip:hf"])
    assert told["Options"] == pairs
    assert node.keys == ["models/org/m/vae.bin", "models/org/m/hf/x/w.bin"]


async def test_only_the_model_file_must_arrive(models: Path) -> None:
    assert (await stage(models, Node("mm.bin"), MMProj="mm.bin"))["MMProj"] == ""
    with pytest.raises(SimulationError):
        await stage(models, Node("phi.bin"), ModelFile="phi/phi.bin")


async def test_a_directory_is_staged_file_by_file_unless_the_frontend_is_a_seed_one(models: Path) -> None:
    node = Node()
    told = await stage(models, node, ModelFile="hf", Model="hf")
    assert node.keys == ["models/org/m/hf/x/w.bin"]
    assert (told["ModelFile"], told["ModelPath"]) == ("/node/models/org/m/hf", "/node/models/org/m")


async def test_a_file_outside_the_models_directory_goes_by_its_name(models: Path) -> None:
    node = Node()
    await stage(models, node, MMProj="../outside.bin")
    assert node.keys == ["models/org/m/outside.bin"]
