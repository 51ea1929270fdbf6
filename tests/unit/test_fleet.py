"""A fleet in virtual time: histories repeat, and what breaks is found, shrunk and played again."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localai_worker.app.simulator.fleet.assembly import AssemblyLine
from localai_worker.app.simulator.fleet.faults import KINDS, schedule
from localai_worker.app.simulator.fleet.life import Life
from localai_worker.app.simulator.fleet.plan import Case, Fault, FleetPlan, WrongPlan
from localai_worker.app.simulator.fleet.replay import Replay
from localai_worker.app.simulator.fleet.shrink import shrink
from localai_worker.app.simulator.fleet.simulation import Outcome, play
from tests import planted_faults as planted

SMALL = FleetPlan(nodes=3, hours=0.25, seed=3, faults="storm,kill,crash", models=6)


def command(*arguments: str, hash_seed: str = "random", expected: int = 0) -> str:
    """What `localai-worker ...` prints, in a process of its own."""
    outcome = subprocess.run(
        [sys.executable, "-m", "localai_worker", *arguments],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert outcome.returncode == expected, outcome.stdout + outcome.stderr
    return outcome.stdout


def simulated(*arguments: str, hash_seed: str) -> dict[str, object]:
    """The JSON object at the end of `simulate fleet --json`."""
    options = ("--nodes", "3", "--hours", "0.25", "--seed", "3", "--faults", SMALL.faults, "--models", "6")
    printed = command("simulate", "fleet", *options, "--json", *arguments, hash_seed=hash_seed)
    values: dict[str, object] = json.loads(printed.splitlines()[-1])
    return values


def test_the_same_seed_gives_the_same_history_in_every_process() -> None:
    here = play(schedule(SMALL))
    first, second = (simulated(hash_seed=seed) for seed in ("1", "4242"))
    assert first == second
    assert first["history"] == here.digest
    assert first["events"] == here.events
    assert first["violations"] == 0
    assert play(schedule(SMALL)).digest == here.digest  # and a second time in one process


def test_a_container_used_again_mixes_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = play(schedule(SMALL))
    honest = AssemblyLine.begin

    async def begin(self: AssemblyLine, *args: Any) -> Life:
        self.__post_init__()  # a container of its own for every worker
        return await honest(self, *args)

    monkeypatch.setattr(AssemblyLine, "begin", begin)
    assert play(schedule(SMALL)).digest == expected.digest


def test_another_seed_gives_another_history() -> None:
    plans = (FleetPlan(nodes=2, hours=0.2, seed=seed, models=6) for seed in (1, 2))
    first, second = (play(schedule(plan)) for plan in plans)
    assert first.digest != second.digest


@pytest.mark.parametrize("kinds", [list(KINDS)[first::4] for first in range(4)], ids=lambda kinds: kinds[0])
def test_a_fleet_withstands_every_kind_of_fault(kinds: list[str]) -> None:
    """S-K14 S-K23: after all of it the nodes heal, nothing is lost and nobody answers for another."""
    faults = tuple(
        Fault(
            at_s=130.0 + 1250 * number / len(kinds) / 2 + 600 * again,
            kind=kind,
            nodes=(0, 1) if KINDS[kind].per_node_hour or KINDS[kind].share else (),
            for_s=min(KINDS[kind].lasts_s[1], 150.0),
            number=number + 7 * again,
        )
        for again in (0, 1)
        for number, kind in enumerate(kinds)
    )
    plan = FleetPlan(nodes=3, hours=0.75, seed=5, models=6, operations=6)
    outcome = play(Case(plan=plan, faults=tuple(sorted(faults, key=lambda fault: fault.at_s))))
    assert outcome.violation is None
    assert len(outcome.figures.faults) == len(faults)
    assert outcome.figures.counts["answered"] > 0


def broken_outcome(monkeypatch: pytest.MonkeyPatch) -> Outcome:
    planted.death_that_nobody_cleans_up(monkeypatch)
    crashes = [Fault(at_s=60.0 * minute, kind="crash", nodes=(minute % 3,)) for minute in range(2, 14)]
    decoys = [Fault(at_s=50.0 * step, kind="clock-jump", nodes=(0,), number=step) for step in range(3, 9)]
    faults = tuple(sorted([*crashes, *decoys], key=lambda fault: fault.at_s))
    outcome = play(Case(plan=FleetPlan(nodes=3, hours=0.3, seed=2, models=6), faults=faults))
    assert outcome.violation is not None
    return outcome


def test_a_violation_is_shrunk_to_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = broken_outcome(monkeypatch)
    small = shrink(outcome, most_runs=25)
    assert small.violation is not None
    assert small.violation.invariant == outcome.violation.invariant  # type: ignore[union-attr]
    assert len(small.case.faults) < len(outcome.case.faults)
    assert small.case.end_s <= outcome.case.end_s
    again = play(small.case)
    assert (again.digest, again.violation) == (small.digest, small.violation)


def test_nothing_is_shrunk_where_nothing_is_broken() -> None:
    outcome = play(schedule(FleetPlan(nodes=1, hours=0.05)))
    with pytest.raises(ValueError, match="nothing is broken"):
        shrink(outcome)


def test_a_replay_file_holds_the_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = broken_outcome(monkeypatch)
    file = tmp_path / "replay.json"
    Replay.of(outcome).save(file)
    replay = Replay.load(file)
    assert replay.case == outcome.case
    assert play(replay.case).digest == replay.digest
    assert replay.violation == str(outcome.violation)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"case": {"plan": {"nodes": 0}, "faults": []}}'])
def test_a_file_that_is_no_replay_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "replay.json"
    file.write_text(content)
    with pytest.raises(WrongPlan, match=r"replay file|nodes"):
        Replay.load(file)


def test_the_command_replays_what_it_wrote(tmp_path: Path) -> None:
    outcome = play(schedule(FleetPlan(nodes=2, hours=0.1, seed=9, models=6)))
    file = tmp_path / "replay.json"
    Replay.of(outcome).save(file)
    printed = command("simulate", "replay", str(file))
    assert "the same history as recorded" in printed
    assert outcome.digest in printed


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"nodes": 0}, "nodes is 0; it must be between 1 and 100000"),
        ({"hours": 0.0}, "hours is 0.0; it must be above 0"),
        ({"faults": "gremlins"}, "faults is 'gremlins'; it must be one of none, default, storm"),
    ],
)
def test_a_plan_that_cannot_be_played_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(WrongPlan) as caught:
        schedule(FleetPlan(**options))
    assert complaint in str(caught.value)


def test_wrong_options_are_no_violation() -> None:
    """Exit code 1 is for invariants that do not hold."""
    command("simulate", "fleet", "--faults", "gremlins", expected=2)


def test_a_schedule_leaves_a_quiet_end() -> None:
    case = schedule(FleetPlan(nodes=20, hours=2, faults="storm"))
    assert len(case.faults) > 50
    assert max(fault.at_s + fault.for_s for fault in case.faults) <= case.plan.faults_end_s + 0.01
    assert case.plan.faults_end_s == 2 * 3600 - 22 * 60
