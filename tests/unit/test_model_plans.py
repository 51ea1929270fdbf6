"""From gallery entries to what an install writes."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.errors import WorkerError
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.model_entry import BaseDocument, InvalidModelEntry, ModelEntry, parse_size
from localai_worker.domain.model_plan import (
    ModelInstallsNothing,
    ModelPlan,
    OutsideModels,
    Payload,
    below_models,
    merge,
    plan_model,
    record_path,
)
from localai_worker.domain.model_variants import Variant, choose_variant, memory_budget_bytes
from localai_worker.domain.ports.galleries import PlainText
from localai_worker.domain.ports.hardware import Gpu, Hardware, Memory
from localai_worker.domain.yaml_values import YamlValue, reads_otherwise, typed

SITE = Gallery("site", "https://example.invalid/index.yaml")
GIB = 1 << 30


def entry(**fields: object) -> ModelEntry:
    return ModelEntry.from_mapping({"name": "m", **fields}, SITE)


def plan(config: Mapping[str, YamlValue] | None = None, **fields: Any) -> ModelPlan:
    built = entry(**fields)
    return plan_model(built, Payload(built, None, config if config is not None else built.config))


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
        ({"a": {"x": {"z": 1}}}, {"a": {"x": {"w": 2}}}, {"a": {"x": {"z": 1, "w": 2}}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": True}, {"a": False}, {"a": False}),
        (
            {"a": "x", "b": 7, "c": [1], "d": {"x": 1}},
            {"a": "", "b": 0, "c": [], "d": None},
            {"a": "", "b": 0, "c": [], "d": None},
        ),
        ({"a": {"x": 1}}, {"a": {}}, {"a": {"x": 1}}),
        ({"a": 1}, {"a": {}}, {"a": {}}),
        ({"a": {"x": 1}}, {"a": "text"}, {"a": "text"}),
    ],
)
def test_overrides_replace_everything_but_maps(base: Any, over: Any, merged: Any) -> None:
    """M-3.6."""
    assert merge(base, over) == merged


def test_the_name_is_the_entrys_unless_it_is_overridden() -> None:
    """M-3.6."""
    assert plan(overrides={"backend": "x"}).config == {"backend": "x", "name": "m"}
    renamed = plan(overrides={"name": "other"})
    assert renamed.config == {"name": "other"}
    assert renamed.config_path == PurePosixPath("m.yaml")


def test_sampling_parameters_are_copied_to_the_top() -> None:
    """M-3.7."""
    config = plan(
        overrides={
            "top_p": PlainText("0.5"),
            "parameters": {
                "temperature": PlainText("0"),
                "top_p": PlainText("0.9"),
                "repeat_penalty": PlainText("0"),
                "presence_penalty": PlainText("1.1"),
            },
        }
    ).config
    assert config is not None
    assert (config["temperature"], config["top_p"], config["presence_penalty"]) == (0, 0.5, 1.1)
    assert "repeat_penalty" not in config


def test_keys_are_in_order_at_every_depth() -> None:
    """M-4.1.4."""
    config = plan(overrides={"z": {"b": "1", "a": "2"}, "a": "x"}).config
    assert config is not None
    assert list(config) == ["a", "name", "z"]
    assert isinstance(config["z"], dict)
    assert list(config["z"]) == ["a", "b"]


def test_keys_are_in_order_within_lists() -> None:
    """M-4.1.4."""
    config = plan(overrides={"download_files": [{"uri": "u", "filename": "f", "sha256": "s"}]}).config
    assert config is not None
    files = config["download_files"]
    assert isinstance(files, list)
    assert isinstance(files[0], dict)
    assert list(files[0]) == ["filename", "sha256", "uri"]


def test_an_entry_with_files_only_writes_no_configuration() -> None:
    """M-3.9."""
    only = plan(files=[{"filename": "a.gguf", "uri": "https://h/a"}])
    assert only.config is None
    assert only.record()["config_file"] == ""


def test_an_entry_with_nothing_installs_nothing() -> None:
    """M-3.4."""
    with pytest.raises(ModelInstallsNothing, match='gallery model "m" installs nothing'):
        plan()


def test_urls_and_files_of_the_base_document_come_first() -> None:
    """M-3.5, M-3.1."""
    built = entry(url="https://h/x", urls=["own"], license="mit", files=[{"filename": "own", "uri": "u"}])
    document = BaseDocument.from_document(
        {"name": "base", "license": "other", "urls": ["its"], "files": [{"filename": "its", "uri": "u"}]},
        entry="m",
    )
    planned = plan_model(built, Payload(built, document))
    assert planned.urls == ("its", "own")
    assert [each.filename for each in planned.files] == ["its", "own"]
    assert (planned.license, planned.description, planned.document_name) == ("mit", "", "base")


@pytest.mark.parametrize(
    ("value", "path"),
    [("a.gguf", "a.gguf"), ("/a.gguf", "a.gguf"), ("a/../b", "b"), ("./a//b", "a/b"), ("a..b", "a..b")],
)
def test_a_path_is_read_below_the_models(value: str, path: str) -> None:
    """M-4.2.1."""
    assert below_models(value) == PurePosixPath(path)


@pytest.mark.parametrize("value", ["", "/", ".", "..", "../a", "a/../..", "/../a", "a/..", "a\0b"])
def test_a_path_that_leads_out_is_refused(value: str) -> None:
    """M-4.2.1."""
    with pytest.raises(OutsideModels, match="path is outside of trusted root"):
        below_models(value)


@given(st.text(max_size=40))
def test_no_path_ever_leads_out(value: str) -> None:
    """M-4.2.1."""
    try:
        path = below_models(value)
    except OutsideModels:
        return
    assert not path.is_absolute()
    assert path.parts
    assert ".." not in path.parts


def test_names_that_lead_out_are_refused_before_anything_else() -> None:
    """M-4.2.1: of files, templates and the model itself."""
    built = entry(url="u")
    document = BaseDocument.from_document({"prompt_templates": [{"name": "../x", "content": ""}]}, entry="m")
    with pytest.raises(OutsideModels):
        plan_model(built, Payload(built, document))
    outside = ModelEntry.from_mapping({"name": "../m", "overrides": {"a": "b"}}, SITE)
    with pytest.raises(OutsideModels):
        plan_model(outside, Payload(outside))


def test_the_record_lies_beside_the_configuration() -> None:
    assert record_path("m") == PurePosixPath("._gallery_m.yaml")
    assert record_path("sub/m") == PurePosixPath("sub/._gallery_m.yaml")


@pytest.mark.parametrize(
    "overrides",
    [
        {"backend": "../x"},
        {"backend": "a b"},
        {"backend": ["x"]},
        {"mmproj": "/etc/x"},
        {"parameters": {"model": "../x"}},
        {"parameters": "x"},
        {"parameters": {"model": {"a": "b"}}},
        {"download_files": "x"},
        {"download_files": ["x"]},
        {"download_files": [{"filename": "../x"}]},
    ],
)
def test_a_configuration_that_a_frontend_would_not_load_is_refused(overrides: dict[str, object]) -> None:
    """M-3.8."""
    with pytest.raises(InvalidModelEntry):
        plan(overrides=overrides)


@pytest.mark.parametrize(
    "fields",
    [
        {"url": ["x"]},
        {"urls": "x"},
        {"urls": [["x"]]},
        {"overrides": "x"},
        {"config_file": ["x"]},
        {"files": {"a": "b"}},
        {"files": ["x"]},
        {"files": [{"filename": ["x"]}]},
        {"variants": ["x"]},
    ],
)
def test_a_field_of_the_wrong_type_is_an_error_of_that_entry(fields: dict[str, object]) -> None:
    """M-2.4."""
    with pytest.raises(InvalidModelEntry, match='gallery model "m" is invalid'):
        entry(**fields)


def test_texts_stay_texts_and_configuration_keeps_its_types() -> None:
    """M-2.4."""
    read = entry(
        size=PlainText("14"),
        license=PlainText(),
        config_file={"f16": PlainText("true"), "n": PlainText("1.10")},
    )
    assert (read.size, read.license) == ("14", "")
    assert read.config == {"f16": True, "n": 1.1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("1", 1), ("-3", -3),
        ("+3", 3), ("0x1F", 31), ("0o17", 15), ("017", 15), ("0b101", 5), ("1_000", 1000), ("1.5", 1.5),
        (".5", 0.5), ("1e3", 1000.0), ("-.inf", float("-inf")), ("yes", "yes"), ("on", "on"), ("x", "x"),
        ("2026-04-20", "2026-04-20"), ("1.2.3", "1.2.3"), ("0x", "0x"), ("1e999", "1e999"), ("08", 8),
    ],
)  # fmt: skip
def test_plain_scalars_mean_what_upstream_reads(text: str, value: YamlValue) -> None:
    assert typed(PlainText(text)) == value
    assert typed(text) == text
    assert reads_otherwise(text) == (not isinstance(value, str))


@pytest.mark.parametrize(
    ("text", "size"),
    [("14.5GB", 14_500_000_000), ("13.5GiB", round(13.5 * GIB)), ("900TB", 900 * 10**12), ("1 MB", 10**6),
     ("512", 512), ("7kb", 7000), ("", 0), ("big", 0), ("-1GB", 0)],
)  # fmt: skip
def test_declared_sizes(text: str, size: int) -> None:
    """M-2.1.2."""
    assert parse_size(text) == size


def variant(name: str, backend: str = "llama-cpp", gib: float = 0, *tags: str) -> Variant:
    return Variant(ModelEntry(name=name, gallery=SITE, tags=tags), backend, round(gib * GIB))


BASE = variant("base", gib=4)


@pytest.mark.parametrize(
    ("capability", "budget_gib", "others", "chosen"),
    [
        ("nvidia-cuda-12", 24, [variant("big", gib=20)], "big"),
        ("nvidia-cuda-12", 8, [variant("big", gib=20)], "base"),
        ("nvidia-cuda-12", 24, [variant("vllm", "vllm", 5)], "vllm"),
        ("default", 24, [variant("vllm", "vllm", 5)], "base"),
        ("nvidia-cuda-12", 24, [variant("mlx", "mlx", 5)], "base"),
        ("metal", 64, [variant("mlx", "mlx", 5)], "mlx"),
        ("nvidia-cuda-12", 24, [variant("nobody knows")], "base"),
        ("nvidia-cuda-12", 24, [variant("drafts", "llama-cpp", 4, "mtp"), variant("more", gib=5)], "drafts"),
        (
            "nvidia-cuda-12",
            24,
            [variant("a", "llama-cpp", 4, "mtp"), variant("b", "llama-cpp", 3, "dflash")],
            "b",
        ),
        ("nvidia-cuda-12", 0, [variant("big", gib=20)], "base"),
        ("nvidia-cuda-12", 24, [], "base"),
    ],
)
def test_the_build_that_fits_best_is_chosen(
    capability: str, budget_gib: int, others: list[Variant], chosen: str
) -> None:
    """M-2.1.3."""
    found = choose_variant(BASE, others, capability=capability, budget_bytes=budget_gib * GIB)
    assert found.entry.name == chosen


def test_the_budget_is_vram_where_the_node_computes_on_it() -> None:
    """M-2.1.2."""
    gpu = Gpu(vendor="nvidia", name="x", total_bytes=24 * GIB, free_bytes=None)
    node = Hardware(gpus=(gpu,), ram=Memory(64 * GIB, 60 * GIB))
    assert memory_budget_bytes("nvidia", node) == 24 * GIB
    assert memory_budget_bytes("default", node) == 64 * GIB
    assert memory_budget_bytes("default", Hardware()) == 0


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    )
)
def test_no_entry_makes_it_fail_otherwise_than_foreseen(value: Any) -> None:
    """M-1.6."""
    for key in ("url", "urls", "files", "variants", "overrides", "config_file", "name"):
        try:
            built = ModelEntry.from_mapping({"name": "m", key: value}, SITE)
            plan_model(built, Payload(built, None, built.config))
        except WorkerError:
            continue
