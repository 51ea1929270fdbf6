"""Which name a backend installed by uri gets."""

import json
from pathlib import Path
from typing import Any

import pytest

from localai_worker.domain.backend import UnsafeBackendName
from localai_worker.domain.external_uri import NameNotSupported, NameRequired, name_external

GOLDEN: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "golden/backends/install-plan-cases.json").read_text()
)
NAMED = [case for case in GOLDEN if case.get("installs_as")]
REFUSED = [case for case in GOLDEN if case.get("external") and str(case.get("error", "")).startswith("spec")]


def name(uri: str, given: str = "", alias: str = "", *, is_directory: bool = False) -> str | None:
    return name_external(uri, name=given, alias=alias, is_directory=is_directory)


@pytest.mark.parametrize("case", NAMED, ids=lambda case: case["uri"])
def test_golden_names(case: dict[str, Any]) -> None:
    """G-2.4.1, G-2.4.3."""
    is_directory = case["class"] == "directory copy"
    assert name(case["uri"], case["name"], is_directory=is_directory) == case["installs_as"]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["uri"])
def test_golden_refusals(case: dict[str, Any]) -> None:
    """G-2.4.2, G-2.4.4."""
    with pytest.raises((NameRequired, NameNotSupported)) as caught:
        name(case["uri"], case["name"])
    assert str(caught.value) == case["error"]


@pytest.mark.parametrize(
    ("uri", "is_directory", "expected"),
    [
        ("/srv/trees/my.tool/", True, "my.tool"),
        ("ocifile:///images/my-tool.tar.gz", False, "my-tool.tar"),
        ("ocifile:///images/my-tool.tar@sha256:00", False, "my-tool"),
        ("ocifile:///images/plain", False, "plain"),
    ],
)
def test_a_directory_or_an_image_file_gives_its_own_name(uri: str, is_directory: bool, expected: str) -> None:
    """N-B6: the name derived from the uri."""
    assert name(uri, is_directory=is_directory) == expected
    assert name(uri, "given", "alias", is_directory=is_directory) == "given"


@pytest.mark.parametrize(
    "uri", ["quay.io/a/b:1", "ghcr.io/a/b", "docker.io/b", "oci://r.invalid/b:1", "ollama://m"]
)
def test_an_image_in_a_registry_needs_a_name(uri: str) -> None:
    """G-2.4.2."""
    assert name(uri, "given") == "given"
    with pytest.raises(NameRequired):
        name(uri, alias="alias")


@pytest.mark.parametrize("uri", ["llama-cpp", "localai@llama-cpp", "https://h/t.tar.gz", "/no/directory"])
def test_anything_else_names_a_gallery_entry(uri: str) -> None:
    """G-2.4.4."""
    assert name(uri) is None
    for given, alias in [("n", ""), ("", "a")]:
        with pytest.raises(NameNotSupported):
            name(uri, given, alias)


@pytest.mark.parametrize(
    ("uri", "given", "is_directory"),
    [
        ("/", "", True),
        ("/srv/x", "../x", True),
        ("/srv/x/..", "", True),
        ("ocifile:///.tar", "", False),
        ("ocifile://", "", False),
        ("oci://r.invalid/b:1", "a/b", False),
        ("oci://r.invalid/b:1", ".hidden", False),
    ],
)
def test_a_name_that_could_lead_out_is_refused(uri: str, given: str, is_directory: bool) -> None:
    """G-W5, N-B7: names are single safe path components."""
    with pytest.raises(UnsafeBackendName):
        name(uri, given, is_directory=is_directory)
