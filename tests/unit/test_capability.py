"""Capabilities, against the cases recorded from LocalAI's behaviour."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.capability import choose, detect, is_compatible, prefer
from localai_worker.domain.ports.hardware import Gpu, Hardware

CASES: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent.parent / "golden/backends/capability-cases.json").read_text()
)
GIB = 1024**3
CAPABILITIES = [
    "default",
    "nvidia",
    "nvidia-cuda-12",
    "nvidia-l4t-cuda-13",
    "amd",
    "intel",
    "metal",
    "vulkan",
]


def machine(case: dict[str, Any]) -> Hardware:
    gpu = Gpu(vendor=case["vendor"], name="some GPU", total_bytes=case["vram"], free_bytes=None)
    return Hardware(
        gpus=(gpu,) if case["vendor"] else (),
        architecture=case["arch"],
        system=case["os"],
        cuda_directories=frozenset(major for major in (12, 13) if case[f"cuda{major}"]),
    )


def nvidia(*, architecture: str, vram_bytes: int | None, cuda: frozenset[int] = frozenset()) -> Hardware:
    gpu = Gpu(vendor="nvidia", name="some GPU", total_bytes=vram_bytes, free_bytes=None)
    return Hardware(gpus=(gpu,), architecture=architecture, system="linux", cuda_directories=cuda)


@pytest.mark.parametrize("case", CASES["detect"])
def test_golden_detection(case: dict[str, Any]) -> None:
    """G-1.5.1, G-1.5.2, G-1.5.7."""
    assert detect(machine(case), case["env"], case["run_file"]) == case["capability"]


@pytest.mark.parametrize("case", CASES["choose"])
def test_golden_choice(case: dict[str, Any]) -> None:
    """G-1.5.14, G-1.5.15, G-1.2.17, G-F18: a meta backend without `default` but with `cpu` is usable."""
    assert choose(case["capability"], dict.fromkeys(case["map_keys"], "some-build")) == case["newer"]


@pytest.mark.parametrize("case", CASES["filter"])
def test_golden_filter(case: dict[str, Any]) -> None:
    """G-1.6.1, G-1.6.3, G-W25: as recorded, but that `amd64` names no GPU."""
    passes = case["passes"] or "amd64" in case["uri"]
    assert is_compatible(case["capability"], name=case["name"], uri=case["uri"]) == passes


@pytest.mark.parametrize("case", CASES["alias"])
def test_golden_alias(case: dict[str, Any]) -> None:
    """G-1.6.10, G-1.6.16."""
    assert prefer(case["capability"], case["dirs"]) == case["chosen"]


def test_what_is_forced_is_taken_verbatim() -> None:
    assert detect(Hardware(), " Disable ", "amd") == " Disable "


def test_a_run_file_is_trimmed() -> None:
    """G-1.5.2, G-W33: editors and `echo` end a file with a new line."""
    assert detect(Hardware(), None, "\t nvidia-cuda-12 \r\n") == "nvidia-cuda-12"


@pytest.mark.parametrize("blank", ["", " \n", None])
def test_a_blank_run_file_says_nothing(blank: str | None) -> None:
    """G-1.5.2, G-W33: the file may be read while it is being written."""
    hardware = nvidia(architecture="amd64", vram_bytes=80 * GIB)
    assert detect(hardware, None, blank) == "nvidia"


def test_the_vram_limit_is_inclusive_and_unknown_counts_as_none() -> None:
    assert detect(nvidia(architecture="amd64", vram_bytes=4 * GIB), None, None) == "default"
    assert detect(nvidia(architecture="amd64", vram_bytes=4 * GIB + 1), None, None) == "nvidia"
    assert detect(nvidia(architecture="amd64", vram_bytes=None), None, None) == "default"
    assert detect(nvidia(architecture="arm64", vram_bytes=None), None, None) == "nvidia-l4t"


def test_the_newer_cuda_directory_wins() -> None:
    both = frozenset({12, 13})
    assert detect(nvidia(architecture="arm64", vram_bytes=0, cuda=both), None, None) == "nvidia-l4t-cuda-13"
    only_12 = frozenset({12})
    assert (
        detect(nvidia(architecture="arm64", vram_bytes=0, cuda=only_12), None, None) == "nvidia-l4t-cuda-12"
    )


def test_an_intel_mac() -> None:
    assert detect(Hardware(system="darwin", architecture="amd64"), None, None) == "darwin-x86"


def test_a_meta_backend_is_compatible_if_something_can_be_chosen() -> None:
    """G-1.6.2."""
    only_nvidia = {"nvidia": "cuda12-engine"}
    assert is_compatible("nvidia", name="engine", builds=only_nvidia)
    assert not is_compatible("amd", name="engine", builds=only_nvidia)
    assert is_compatible("disable", name="engine", builds=only_nvidia)
    assert is_compatible("amd", name="engine", builds={"cpu": "cpu-engine"})


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("shipping", ""),
        ("metallic", ""),
        ("ambrosia", "quay.io/example/chip:latest"),
        ("whip", "quay.io/damdara/tool:latest"),
        ("cpu-engine", "quay.io/example/engine:latest-cpu"),
        ("vulkan-engine", ""),
        ("intelligent", "quay.io/barracuda/mlxtend:1"),
        ("engine", "quay.io/example/engine:latest-linux-amd64"),
    ],
)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_words_that_only_contain_a_vendors_name_fit_everywhere(name: str, uri: str, capability: str) -> None:
    """G-1.6.9, G-W25: compatibility goes by whole words."""
    assert is_compatible(capability, name=name, uri=uri)


@pytest.mark.parametrize(
    ("name", "uri", "fits"),
    [
        ("MLX-engine", "", {"metal"}),
        ("engine", "quay.io/example/engine:latest-metal-darwin-arm64-engine", {"metal"}),
        ("nvidia-l4t-cuda-13-engine", "", {"nvidia-l4t-cuda-13"}),
        ("cuda13-engine", "", {"nvidia", "nvidia-cuda-12", "nvidia-l4t-cuda-13"}),
        (
            "engine",
            "quay.io/example/engine:latest-gpu-nvidia-cuda-12",
            {"nvidia", "nvidia-cuda-12", "nvidia-l4t-cuda-13"},
        ),
        ("rocm_engine", "", {"amd"}),
        ("engine", "quay.io/example/engine:gpu-hipblas", {"amd"}),
        ("engine", "quay.io/example/engine:latest-rocm-amd64", {"amd"}),
        ("engine", "quay.io/example/engine:gpu-amd-linux-amd64", {"amd"}),
        ("intel-sycl-f16-engine", "", {"intel"}),
    ],
)
def test_concrete_backends_fit_where_their_words_say(name: str, uri: str, fits: set[str]) -> None:
    """G-1.6.3, G-1.6.4, G-1.6.5, G-1.6.6, G-1.6.7, G-1.6.8."""
    assert {
        capability for capability in CAPABILITIES if is_compatible(capability, name=name, uri=uri)
    } == fits


@given(st.sampled_from(CAPABILITIES), st.lists(st.text(max_size=12)))
def test_an_alias_stands_for_one_of_its_directories(capability: str, directories: list[str]) -> None:
    chosen = prefer(capability, directories)
    assert chosen in directories if directories else chosen is None


def test_preferences_follow_the_capability() -> None:
    """G-1.6.10, G-1.6.11, G-1.6.12, G-1.6.13, G-1.6.14, G-1.6.15, G-1.6.16."""
    directories = [
        "cpu-engine",
        "vulkan-engine",
        "ROCM-engine",
        "cuda12-engine",
        "intel-sycl-engine",
        "metal-engine",
    ]
    assert {capability: prefer(capability, directories) for capability in CAPABILITIES} == {
        "default": "cpu-engine",
        "nvidia": "cuda12-engine",
        "nvidia-cuda-12": "cuda12-engine",
        "nvidia-l4t-cuda-13": "cuda12-engine",
        "amd": "ROCM-engine",
        "intel": "intel-sycl-engine",
        "metal": "metal-engine",
        "vulkan": "vulkan-engine",
    }
