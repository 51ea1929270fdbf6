"""Which source comes next."""

import json
from pathlib import Path
from typing import Any

import pytest

from localai_worker.domain.errors import ArtifactInvalid, ArtifactMissing, ArtifactUnavailable, WorkerError
from localai_worker.domain.source_order import next_source

CASES = json.loads((Path(__file__).parents[1] / "golden/backends/install-plan-cases.json").read_text())
GALLERY_CASES = [case for case in CASES if not case.get("external")]
URI = "quay.io/example/b:latest-cpu-x"
MASTER = "quay.io/example/b:master-cpu-x"
MISSING = ArtifactMissing(URI, "no such tag")
DOWN = ArtifactUnavailable(URI, "connection refused")


def attempts(sources: list[str], *answers: WorkerError) -> list[str]:
    """What is tried when each attempt is answered as told, the last answer repeated."""
    tried: list[str] = []
    failures: list[WorkerError] = []
    while (uri := next_source(sources, failures)) is not None:
        tried.append(uri)
        failures.append(answers[min(len(failures), len(answers) - 1)])
    return tried


@pytest.mark.parametrize("case", GALLERY_CASES, ids=lambda case: case["uri"])
def test_golden_order_where_nothing_is_found(case: dict[str, Any]) -> None:
    """G-2.3.1, G-2.3.2, G-2.3.3, G-2.3.4, G-2.3.6."""
    assert attempts([case["uri"], *case["mirrors"]], MISSING) == case["attempts"]


@pytest.mark.parametrize("answer", [DOWN, ArtifactInvalid(URI, "wrong digest")])
def test_an_outage_or_a_broken_image_never_installs_another_build(answer: WorkerError) -> None:
    """G-2.3.5, G-W2: fallback tags only where the source says that there is no such image."""
    assert attempts([URI, "ghcr.io/m:latest-cpu-x"], answer) == [URI, "ghcr.io/m:latest-cpu-x"]


def test_the_payloads_own_source_decides_not_its_mirrors() -> None:
    """G-W2."""
    assert MASTER not in attempts([URI, "ghcr.io/m/b:latest-cpu-x"], DOWN, MISSING)
    assert MASTER in attempts([URI, "ghcr.io/m/b:latest-cpu-x"], MISSING, DOWN, DOWN)


def test_the_development_build_needs_a_missing_master() -> None:
    """G-2.3.4, G-W2."""
    assert attempts([URI], MISSING, DOWN) == [URI, MASTER]


def test_only_the_first_word_is_replaced_and_development_is_not_said_twice() -> None:
    """G-2.3.3, G-2.3.4."""
    assert attempts(["h.io/latest-a:latest-b"], MISSING)[1] == "h.io/master-a:latest-b"
    assert attempts(["h.io/a:latest-b-development"], MISSING)[1:] == ["h.io/a:master-b-development"]


def test_a_directory_has_no_tags() -> None:
    assert attempts(["/srv/latest-x"], MISSING) == ["/srv/latest-x"]
