"""Prefetching whatever a gallery says, over everything in memory."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from tests.prefetching import FILE, Node, model


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "ollama://",
            "oci://",
            "quay.io/x",
            "ocifile://x",
            "file://",
            "http://",
            "https://[::1",
            "github:",
            FILE,
        ]
    ),
    st.sampled_from(["github://a/b@", "huggingface://a/b/c@d@e", "hf.co/", "hf://o/r", "hf://owner/repo/x"]),
    st.sampled_from(["owner/repo", "https://huggingface.co/o/r/resolve", "a.zip", "..", "x" * 300]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def mostly(usual: object) -> st.SearchStrategy[Any]:
    return st.one_of(st.just(usual), VALUES)


SOURCES = st.fixed_dictionaries(
    {"type": mostly("huggingface"), "repo": mostly("owner/repo")},
    optional={
        "revision": mostly("main"),
        "token_env": mostly("HF_TOKEN"),
        "allow_patterns": st.one_of(st.lists(TEXTS, max_size=3), VALUES),
        "ignore_patterns": VALUES,
    },
)
ARTIFACTS = st.fixed_dictionaries(
    {"source": st.one_of(SOURCES, VALUES)},
    optional={
        "name": VALUES,
        "target": VALUES,
        "resolved": st.one_of(
            VALUES,
            st.fixed_dictionaries(
                {"endpoint": mostly("https://huggingface.co"), "revision": mostly("a" * 40)},
                optional={"cache_key": mostly("f" * 64), "primary_file": VALUES},
            ),
        ),
    },
)
CONFIGURATIONS = st.fixed_dictionaries(
    {},
    optional={
        "backend": mostly("vllm"),
        "artifacts": st.one_of(st.lists(ARTIFACTS, max_size=2), VALUES),
        "parameters": st.one_of(VALUES, st.fixed_dictionaries({"model": TEXTS})),
        "download_files": VALUES,
    },
)
FILES = st.lists(
    st.fixed_dictionaries({}, optional={"filename": TEXTS, "uri": TEXTS, "sha256": TEXTS}), max_size=2
)


@settings(max_examples=100, deadline=None)
@given(CONFIGURATIONS, FILES, TEXTS)
async def test_whatever_a_gallery_says_costs_its_model_alone(
    config: dict[str, Any], files: list[dict[str, str]], url: str
) -> None:
    """M-1.6, M-8.1: and is foreseen."""
    node = Node()
    node.hub.publish("owner/repo", {"a": b"1", "b/x": b"2"})
    node.list_models(
        {"name": "a", "overrides": config, "files": files},
        {"name": "b", "config_file": config},
        {"name": "c", "url": url, "files": files},
        model("good"),
    )
    with node.bugs() as bugs:
        await node.prefetch("a", "b", "c", "good")
    assert bugs == []
    assert node.config("good")["backend"] == "x"
