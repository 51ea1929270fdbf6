"""What an install would do and why, over everything in memory."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from localai_worker.adapters.galleries.yaml_text import parse_yaml
from localai_worker.adapters.memory.artifacts import InMemoryArtifacts, InMemoryAttachments
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.galleries import InMemoryGalleries
from localai_worker.adapters.memory.signatures import InMemorySignatures
from localai_worker.domain.capability import detect, trace
from localai_worker.domain.explain_backend import ExplainBackend, Explanation
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.gallery_index import GalleryIndexes
from localai_worker.domain.installed import InstalledBackends
from localai_worker.domain.integrity import Integrity
from localai_worker.domain.ports.hardware import Gpu, Hardware, Memory
from localai_worker.domain.read_galleries import ReadGalleries

TESTS = Path(__file__).parents[1]
INVENTORIES: list[dict[str, Any]] = json.loads((TESTS / "inventories.json").read_text())
BACKENDS = Path("/srv/backends")
SITE = Gallery("site", "https://example.invalid/index.yaml")
CUDA = "quay.io/example/local-ai-backends:latest-gpu-nvidia-cuda-12-demo-engine"


def hardware(inventory: Mapping[str, Any]) -> Hardware:
    """A node as one of the inventories says."""
    return Hardware(
        gpus=tuple(Gpu(**gpu) for gpu in inventory["gpus"]),
        ram=Memory(**inventory["ram"]),
        architecture=inventory["architecture"],
        system=inventory["system"],
        cuda_directories=frozenset(inventory["cuda_directories"]),
    )


def named(name: str) -> Hardware:
    return hardware(next(each for each in INVENTORIES if each["name"] == name))


class Node:
    """A node that has `machine`, the golden gallery and nothing installed."""

    def __init__(self, machine: Hardware, forced: str = "") -> None:
        detection = trace(machine, forced, None)
        index = parse_yaml((TESTS / "golden/backends/gallery-index.yaml").read_bytes(), uri="u")
        assert isinstance(index, list)
        self.filesystem = InMemoryFileSystem()
        self.galleries = InMemoryGalleries({SITE.url: index})
        self.artifacts = InMemoryArtifacts(self.filesystem)
        reader = ReadGalleries(self.galleries, self.filesystem, BACKENDS)
        installed = InstalledBackends(self.filesystem, BACKENDS, Path("/system"), detection.capability)
        self.service = ExplainBackend(
            self.filesystem,
            installed,
            self.artifacts,
            GalleryIndexes(reader, detection.capability),
            Integrity(InMemoryAttachments(), InMemorySignatures()),
            detection,
        )

    async def explain(self, name: str = "demo-engine") -> Explanation:
        return await self.service.explain(name, [SITE])


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda each: each["name"])
def test_every_inventory_has_its_capability(inventory: dict[str, Any]) -> None:
    """G-1.5.3, G-1.5.4, G-1.5.5, G-1.5.6, G-1.5.7, G-1.5.8, G-1.5.12."""
    assert detect(hardware(inventory), None, None) == inventory["capability"]


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda each: each["name"])
async def test_every_inventory_gets_its_build_of_the_golden_backend(inventory: dict[str, Any]) -> None:
    """G-1.4.6, G-1.5.14, G-1.5.15: also for hardware whose build the gallery lacks, which is told."""
    explanation = await Node(hardware(inventory)).explain()
    taken = [build for build in explanation.builds if not build.why_not]
    assert [build.name for build in taken] == [inventory["demo_engine"]]
    assert len(explanation.builds) == 11
    assert all(
        f"this node is {inventory['capability']}" in b.why_not for b in explanation.builds if b.why_not
    )


async def test_what_would_be_installed_and_what_it_takes() -> None:
    node = Node(named("one H100 with CUDA 12"))
    node.artifacts.trees[CUDA] = {"run.sh": b"#!/bin/sh\n", "lib/a.so": b"1" * 90}
    explanation = await node.explain()
    assert explanation.problem == ""
    assert explanation.installed is None
    assert [each.entry.name for each in explanation.considered] == ["demo-engine", "cuda12-demo-engine"]
    assert explanation.target == BACKENDS / "cuda12-demo-engine"
    assert explanation.source is not None
    assert explanation.source.uri == CUDA
    assert explanation.source.estimate is not None
    assert explanation.source.estimate.download_bytes == 100
    assert node.filesystem.files() == []


async def test_the_steps_of_the_detection_end_with_the_one_that_decided() -> None:
    explanation = await Node(named("one H100 with CUDA 12")).explain()
    steps = explanation.detection.steps
    assert [step.rule for step in steps if step.capability] == ["CUDA"]
    assert (steps[-1].found, steps[-1].capability) == ("/usr/local/cuda-12", "nvidia-cuda-12")
    assert any("79.6 GiB, more than 4" in step.found for step in steps)


async def test_a_mirror_that_would_serve_is_named_with_what_the_others_said() -> None:
    node = Node(named("no GPU"))
    mirror = "ghcr.io/example/local-ai-backends:latest-cpu-demo-engine"
    node.artifacts.trees[mirror] = {"run.sh": b"x"}
    node.artifacts.trees["quay.io/other"] = {}
    explanation = await node.explain("cpu-demo-engine")
    assert [source.uri for source in explanation.sources] == [mirror.replace("ghcr", "quay"), mirror]
    assert "cannot fetch" in explanation.sources[0].problem
    assert explanation.source == explanation.sources[1]
    assert explanation.problem == ""


async def test_nothing_to_be_had_anywhere_is_the_problem() -> None:
    node = Node(named("no GPU"))
    node.artifacts.offline = True
    explanation = await node.explain("cpu-demo-engine")
    assert explanation.source is None
    assert "offline" in explanation.problem


async def test_entries_for_other_hardware_are_told_with_the_word_that_says_so() -> None:
    """G-1.4.5."""
    explanation = await Node(named("no GPU")).explain("cuda12-demo-engine")
    assert explanation.problem == 'no backend found with name "cuda12-demo-engine"'
    assert [each.why_not for each in explanation.considered] == [
        '"cuda" in its name or uri is for nvidia..., this node is default'
    ]
    assert explanation.target is None


async def test_a_gallery_that_cannot_be_read_is_the_problem() -> None:
    node = Node(named("no GPU"))
    node.galleries.offline = True
    assert "failed to read gallery elements" in (await node.explain()).problem


async def test_what_is_installed_already_is_told() -> None:
    node = Node(named("no GPU"))
    node.filesystem.put(BACKENDS / "demo-engine/run.sh", b"#!/bin/sh\n", mode=0o755)
    explanation = await node.explain()
    assert explanation.installed is not None
    assert explanation.installed.run_file == BACKENDS / "demo-engine/run.sh"


async def test_a_disk_too_small_is_told_before_anything_is_downloaded() -> None:
    node = Node(named("no GPU"))
    node.artifacts.trees["quay.io/example/local-ai-backends:latest-cpu-demo-engine"] = {"run.sh": b"x" * 1000}
    node.filesystem.capacity_bytes = 500
    explanation = await node.explain()
    assert explanation.problem == "it needs about 1000 bytes of disk, 500 are available"


async def test_a_forced_capability_is_the_reason() -> None:
    """G-1.5.1."""
    explanation = await Node(named("no GPU"), forced="vulkan").explain()
    assert [step.rule for step in explanation.detection.steps] == ["forced by the operator"]
    assert [build.name for build in explanation.builds if not build.why_not] == ["vulkan-demo-engine"]
