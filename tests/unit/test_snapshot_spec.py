"""What a configuration says about repositories, and what follows from its backend."""

import hashlib
from typing import Any

import pytest

from localai_worker.domain.snapshot_spec import InvalidSnapshotSpec, Resolved, SnapshotSpec
from localai_worker.domain.wanted_snapshots import declared_snapshots, inferred_reference, snapshot_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = "https://huggingface.co"


def artifact(**source: Any) -> dict[str, Any]:
    return {"source": {"type": "huggingface", "repo": "owner/repo", **source}}


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_key_is_the_hash_of_what_identifies_the_content() -> None:
    """M-5.3: compact JSON in this order; patterns only where there are some."""
    spec = SnapshotSpec.from_mapping(artifact()).found_at(HUB, COMMIT)
    assert spec.resolved == Resolved(
        endpoint=HUB,
        revision=COMMIT,
        cache_key=sha256_of(
            '{"type":"huggingface","endpoint":"https://huggingface.co","repo":"owner/repo",'
            f'"revision":"{COMMIT}"}}'
        ),
    )
    assert spec.key_is_right
    patterned = artifact(allow_patterns=["b&c", "*.json"], ignore_patterns=["x"], token_env="HF_TOKEN")
    found = SnapshotSpec.from_mapping(patterned).found_at(HUB, COMMIT).resolved
    assert found is not None
    assert found.cache_key == sha256_of(
        '{"type":"huggingface","endpoint":"https://huggingface.co","repo":"owner/repo",'
        f'"revision":"{COMMIT}","allow_patterns":["*.json","b\\u0026c"],"ignore_patterns":["x"]}}'
    )


def test_another_branch_of_the_same_version_is_the_same_content() -> None:
    """M-5.3."""
    one, other = (SnapshotSpec.from_mapping(artifact(revision=name)) for name in ("main", "v1"))
    assert one.found_at(HUB, COMMIT).resolved == other.found_at(HUB, COMMIT).resolved
    assert not one.wants_same(other)


@pytest.mark.parametrize(
    "repo",
    ["owner/repo", " owner/repo/ ", "hf://owner/repo", "huggingface://owner/repo", f"{HUB}/owner/repo"],
)
def test_a_repository_is_written_in_many_ways(repo: str) -> None:
    assert SnapshotSpec.from_mapping(artifact(repo=repo)).repository == "owner/repo"


def test_what_is_written_down_is_what_was_read() -> None:
    """M-5.3: keys in upstream's order."""
    fields = {
        "name": "base_model",
        "target": "companion",
        "source": {
            "type": "huggingface",
            "repo": "owner/repo",
            "revision": "v1",
            "token_env": "HF_TOKEN",
            "allow_patterns": ["a", "b"],
            "ignore_patterns": ["c"],
        },
        "resolved": {"endpoint": HUB, "revision": COMMIT, "cache_key": "f" * 64},
    }
    written = SnapshotSpec.from_mapping({**fields, "unknown": 7}).to_mapping()
    assert written == fields
    assert list(written) == list(fields)
    assert [list(each) for each in written.values() if isinstance(each, dict)] == [
        list(each) for each in fields.values() if isinstance(each, dict)
    ]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "source.type is ''"),
        ({"source": 7}, "source is no mapping"),
        (artifact(type="s3"), "source.type is 's3'"),
        (artifact(repo=""), "names no repository"),
        (artifact(repo="repo"), "names no repository"),
        (artifact(repo="a/b/c"), "names no repository"),
        (artifact(repo="../repo"), "names no repository"),
        (artifact(repo="owner/.."), "names no repository"),
        (artifact(repo="owner/repo?x"), "names no repository"),
        (artifact(repo=7), "repo is 7, not a text"),
        (artifact(revision="a\0b"), "revision holds a NUL"),
        (artifact(token_env="AWS_SECRET"), "token_env is 'AWS_SECRET'"),
        (artifact(allow_patterns="*"), "allow_patterns is no list of texts"),
        (artifact(ignore_patterns=["../x"]), "ignore_patterns has '../x': it climbs"),
        ({**artifact(), "name": "other"}, "must be 'model'"),
        ({**artifact(), "target": "lora"}, "target is 'lora'"),
        ({**artifact(), "target": "companion"}, "a companion is named ''"),
        ({**artifact(), "target": "companion", "name": "model"}, "a companion is named 'model'"),
        ({**artifact(), "target": "companion", "name": "Base"}, "a companion is named 'Base'"),
        ({**artifact(), "resolved": {"endpoint": HUB, "revision": "main"}}, "resolved.revision is 'main'"),
        ({**artifact(), "resolved": {"revision": COMMIT, "cache_key": "x"}}, "resolved.cache_key is 'x'"),
        (
            {
                **artifact(),
                "target": "companion",
                "name": "vae",
                "resolved": {"revision": COMMIT, "primary_file": "x"},
            },
            "a companion has no primary_file",
        ),
    ],
)
def test_what_cannot_be_used_is_told(fields: dict[str, Any], why: str) -> None:
    """M-5.1."""
    with pytest.raises(InvalidSnapshotSpec) as caught:
        SnapshotSpec.from_mapping(fields)
    assert why in str(caught.value)


def test_declared_snapshots_are_the_models_own_and_its_companions() -> None:
    """M-5.1."""
    companion = {**artifact(repo="owner/base"), "target": "companion", "name": "base"}
    wanted = declared_snapshots({"backend": "llama-cpp", "artifacts": [artifact(), companion]})
    assert wanted is not None
    assert [each.repository for each in wanted.specs] == ["owner/repo", "owner/base"]
    assert declared_snapshots({"artifacts": []}) is None
    assert declared_snapshots({}) is None


@pytest.mark.parametrize(
    ("artifacts", "why"),
    [
        ("text", "no list"),
        (["text"], "no list"),
        ([artifact(), artifact()], "all others are companions"),
        ([{**artifact(), "target": "companion", "name": "a"}], "the first entry is the model's own"),
        (
            [artifact(), *[{**artifact(), "target": "companion", "name": "a"}] * 2],
            "two entries have one name",
        ),
    ],
)
def test_entries_must_go_together(artifacts: Any, why: str) -> None:
    """M-5.1."""
    with pytest.raises(InvalidSnapshotSpec, match=why):
        declared_snapshots({"artifacts": artifacts})


DIRECTORY_BACKENDS = (
    "transformers, huggingface-embeddings, sentencetransformers, transformers-musicgen, mamba, diffusers, "
    "qwen-asr, fish-speech, nemo, voxcpm, qwen-tts, liquid-audio, vllm, vllm-omni, sglang, longcat-video"
)


@pytest.mark.parametrize("backend", DIRECTORY_BACKENDS.split(", "))
def test_a_backend_that_loads_directories_suggests_its_model(backend: str) -> None:
    """M-5.1."""
    config: dict[str, Any] = {"backend": backend, "parameters": {"model": " owner/repo "}}
    assert inferred_reference(config) == "owner/repo"
    assert inferred_reference({**config, "download_files": [{"filename": "x"}]}) == ""


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"backend": "llama-cpp", "parameters": {"model": "owner/repo"}},
        {"backend": "vllm"},
        {"backend": "vllm", "parameters": {}},
        {"backend": "vllm", "parameters": None},
        {"backend": "vllm", "parameters": {"model": ""}},
        {"parameters": {"model": "owner/repo"}},
    ],
)
def test_nothing_else_does(config: dict[str, Any]) -> None:
    """M-5.1."""
    assert inferred_reference(config) == ""


@pytest.mark.parametrize(
    ("reference", "repository", "revision", "allow"),
    [
        ("owner/repo", "owner/repo", "main", ()),
        ("owner/repo/", "owner/repo", "main", ()),
        ("hf://owner/repo", "owner/repo", "main", ()),
        ("huggingface://owner/repo", "owner/repo", "main", ()),
        ("hf.co/owner/repo", "owner/repo", "main", ()),
        (f"{HUB}/owner/repo", "owner/repo", "main", ()),
        ("hf://owner/repo/sub/m.gguf", "owner/repo", "main", ("sub/m.gguf",)),
        ("owner/repo/m.gguf", "owner/repo", "main", ("m.gguf",)),
        (f"{HUB}/owner/repo/resolve/main/m.gguf", "owner/repo", "main", ("m.gguf",)),
        (f"{HUB}/owner/repo/resolve/v1.0/sub/m.gguf", "owner/repo", "v1.0", ("sub/m.gguf",)),
    ],
)
def test_what_a_reference_names(
    reference: str, repository: str, revision: str, allow: tuple[str, ...]
) -> None:
    """M-5.1: upstream takes `main` behind resolve/ whatever is written."""
    assert snapshot_of(reference) == SnapshotSpec(repository=repository, revision=revision, allow=allow)


@pytest.mark.parametrize(
    "reference", ["model", "./owner/repo", "/srv/owner/repo", "repo/", "s3://b/k", "ollama://a/b"]
)
def test_what_is_no_reference(reference: str) -> None:
    """M-5.1."""
    assert snapshot_of(reference) is None


@pytest.mark.parametrize(
    "reference",
    [
        "hf://",
        "hf://owner",
        "hf://owner/",
        "hf:///repo",
        "a/b?c",
        f"{HUB}/o/r/resolve",
        "hf://o/r/resolve/main/",
        "hf://o/r/[",
    ],
)
def test_what_looks_like_a_reference_and_is_none(reference: str) -> None:
    with pytest.raises(InvalidSnapshotSpec):
        snapshot_of(reference)
