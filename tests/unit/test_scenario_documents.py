"""Scenario files: read whole or refused with the place of the mistake."""

from pathlib import Path
from typing import Any

import pytest

from localai_worker.app.simulator.scenario.document import (
    ScenarioInvalid,
    parse_duration,
    parse_scenario,
    parse_step,
    read_scenario,
)
from localai_worker.app.simulator.scenario.run import library


def test_a_scenario_is_read(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(
        "name: one\ncovers: [E01]\nspeak: [newer]\nnodes: {a: {X: 1}, b: null}\nsteps:\n"
        "  - wait: {node: a}\n    within: 2m\n    save: it\n  - nodes:\n    fails: nothing\n"
        "  - together: [{nodes: {}}, {wait: {node: b}, expect: {status: healthy}}]\n"
    )
    scenario = read_scenario(path)
    assert (scenario.name, scenario.covers, scenario.speak) == ("one", ("E01",), ("newer",))
    assert scenario.nodes == {"a": {"X": "1"}, "b": {}}
    wait, nodes, together = scenario.steps
    assert (wait.verb, wait.arguments, wait.within_s, wait.save) == ("wait", {"node": "a"}, 120, "it")
    assert (nodes.arguments, nodes.fails) == ({}, "nothing")
    assert [each.verb for each in together.together] == ["nodes", "wait"]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "here: a mapping is wanted"),
        ({"name": "x"}, "here: steps is missing"),
        ({"name": "x", "steps": [], "stesp": 1}, "here: unknown: stesp"),
        ({"name": "x", "steps": {}}, "here: steps: a list is wanted"),
        ({"name": "x", "steps": [], "speak": ["klingon"]}, "here: speak: ['klingon'] is no list of"),
        ({"name": "x", "steps": [{}]}, "here: step 1: one verb is wanted"),
        ({"name": "x", "steps": [{"nodes": {}}, {"a": {}, "b": {}}]}, "here: step 2: one verb is wanted"),
        ({"name": "x", "steps": [{"nodes": 7}]}, "here: step 1: nodes: a mapping is wanted"),
        ({"name": "x", "steps": [{"nodes": {}, "within": "soon"}]}, "here: step 1: 'soon' is no duration"),
        ({"name": "x", "steps": [{"together": [{"a": {}}, 3]}]}, "here: step 1.2: a mapping is wanted"),
    ],
)
def test_a_mistake_is_told_with_its_place(document: Any, says: str) -> None:
    with pytest.raises(ScenarioInvalid) as refused:
        parse_scenario(document, "here")
    assert str(refused.value).startswith(says)


@pytest.mark.parametrize("text", ["{", "a: b: c", "\tname: x"])
def test_what_is_no_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioInvalid, match=r"x\.yaml"):
        read_scenario(path)
    with pytest.raises(ScenarioInvalid, match="No such file"):
        read_scenario(tmp_path / "missing.yaml")


@pytest.mark.parametrize(("text", "seconds"), [(2, 2.0), ("500ms", 0.5), ("20s", 20.0), ("2m", 120.0)])
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text, "here") == seconds


def test_a_step_says_what_it_is() -> None:
    assert str(parse_step({"wait": {"node": "a"}}, "x")) == "wait node=a"
    assert str(parse_step({"wait": {"node": "a"}, "says": "patience"}, "x")) == "patience"


def test_the_scenarios_that_come_along_can_be_read_and_have_names_of_their_own() -> None:
    scenarios = library()
    assert len(scenarios) >= 16
    assert len({scenario.name for scenario in scenarios}) == len(scenarios)
    assert all(scenario.covers for scenario in scenarios)


# Rows of the sheet's section 3.1 in which no worker takes part.
_FRONTENDS_ONLY = {
    "E29",  # the frontend's cache of routes
    "E33",  # which replica has a prompt's prefix
    "E35",  # out of the sheet's scope
}
_AREAS = ("health", "registry", "router", "reconciler", "unloader", "file server", "FileManager")
_NEWER_AREAS = ("newer file server", "newer staging", "newer stop/reap")


def test_every_scenario_of_upstream_in_which_a_worker_takes_part_is_covered() -> None:
    covered = {row for scenario in library() for row in scenario.covers}
    wanted = {f"E{number:02}" for number in range(1, 36)} - _FRONTENDS_ONLY
    assert not (wanted | {f"3.2 {area}" for area in (*_AREAS, *_NEWER_AREAS)}) - covered
