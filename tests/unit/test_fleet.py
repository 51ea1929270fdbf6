"""A fleet in virtual time: histories repeat, and what breaks is found, shrunk and played again."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from localai_worker.app.simulator.fleet import command as fleet_command
from localai_worker.app.simulator.fleet.assembly import AssemblyLine
from localai_worker.app.simulator.fleet.command import Wanted
from localai_worker.app.simulator.fleet.faults import KINDS, schedule
from localai_worker.app.simulator.fleet.host import Host
from localai_worker.app.simulator.fleet.life import Life
from localai_worker.app.simulator.fleet.plan import Case, Fault, FleetPlan, WrongPlan
from localai_worker.app.simulator.fleet.replay import Replay
from localai_worker.app.simulator.fleet.shrink import shrink
from localai_worker.app.simulator.fleet.simulation import Outcome, play
from localai_worker.domain.byte_spans import ByteSpan
from localai_worker.domain.ports.filesystem import RootedPath
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


@pytest.mark.parametrize("profile", ["default", "storm"])
def test_a_profile_holds_every_kind_of_fault(profile: str) -> None:
    case = schedule(FleetPlan(nodes=100, hours=24, faults=profile))
    assert {fault.kind for fault in case.faults} == set(KINDS)


@pytest.mark.parametrize("speak", ["seed", "newer"])
def test_every_generation_of_the_frontend_drives_the_fleet(speak: str) -> None:
    """A seed one knows one replica a node, and neither upgrades, exact stops nor inventories."""
    plan = FleetPlan(nodes=3, hours=0.75, seed=6, models=6, operations=20, speak=speak, faults="kill,crash")
    outcome = play(schedule(plan))
    assert outcome.violation is None
    counts = outcome.figures.counts
    assert counts["loads"] > 5
    assert counts["backend.upgrade"] > 0
    assert counts["model.stop"] > 0
    assert counts["input and result"] > 0
    assert ("models.running" in outcome.figures.latencies) is (speak == "newer")


def test_a_frontend_of_the_other_generation_takes_over_for_a_while() -> None:
    replaced = Fault(at_s=600, kind="frontend-replaced", for_s=900)
    plan = FleetPlan(nodes=3, hours=0.75, seed=4, models=6, speak="seed")
    outcome = play(Case(plan=plan, faults=(replaced,)))
    assert outcome.violation is None
    asked = [at_s for at_s, _ in outcome.figures.latencies["models.running"]]
    assert asked
    assert all(600 < at_s < 1500 for at_s in asked)


def test_a_worker_that_starts_in_a_partition_is_cut_off_too(monkeypatch: pytest.MonkeyPatch) -> None:
    born: list[tuple[int, bool]] = []
    honest = AssemblyLine.begin

    async def begin(self: AssemblyLine, host: Host, *args: Any) -> Life:
        life = await honest(self, host, *args)
        born.append((host.number, life.bus.offline))
        return life

    monkeypatch.setattr(AssemblyLine, "begin", begin)
    faults = (
        Fault(at_s=120, kind="bus-partition", nodes=(0,), for_s=300),
        Fault(at_s=130, kind="bus-partition", nodes=(0,), for_s=20),
        Fault(at_s=200, kind="reboot", nodes=(0, 1), for_s=5),
        Fault(at_s=500, kind="reboot", nodes=(0,), for_s=5),
    )
    outcome = play(Case(plan=FleetPlan(nodes=2, hours=0.75, seed=1, models=6), faults=faults))
    assert outcome.violation is None
    assert born[2:] == [(0, True), (1, False), (0, False)]


async def test_a_killed_worker_holds_no_file_any_more() -> None:
    """The next one goes on with what it was writing, over HTTP and from the object store."""
    host = Host(1, FleetPlan().random("host"), has_store=True)
    place = RootedPath(Path("/node/models"), PurePosixPath("phi.gguf"))
    await host.filesystem.make_directory(place.root)
    for held in (0, 4):
        upload = await host.filesystem.open_partial(place, sha256="a" * 64, total_bytes=9)
        fetched = await host.ranged.assemble(place, version="1", size_bytes=9)
        assert upload.size_bytes == held
        assert fetched.missing == (ByteSpan(held, 9),)
        await upload.write(b"phi-")
        fetched.write_at(0, memoryview(b"phi-"))
        host.worker_died()


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


def test_a_violation_is_told_with_all_it_takes_to_see_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seed, step, the shortest way to it that was found, and the command; which does find it again."""
    planted.cache_that_never_asks_again(monkeypatch)
    plan = FleetPlan(nodes=3, hours=0.4, seed=0, models=6, operations=20)
    faults = tuple(
        Fault(at_s=30.0 * step, kind="changed-object", number=6 * step + model)
        for step in range(4, 30)
        for model in range(6)
    )
    found = play(Case(plan=plan, faults=faults))
    assert found.violation is not None
    file = tmp_path / "case.json"
    shrunk = functools.partial(shrink, most_runs=8)
    monkeypatch.setattr(fleet_command, "schedule", lambda _plan: found.case)
    monkeypatch.setattr(fleet_command, "shrink", shrunk)
    assert fleet_command.run_fleet(plan, 1, 1, Wanted(replay_file=file)) == fleet_command.BROKEN
    told = capsys.readouterr().out
    smaller = Replay.load(file).case
    assert f"seed {plan.seed}, step " in told
    assert "stale-object on node-00001" in told
    assert f"the first {smaller.end_s:.0f} s with {len(smaller.faults)} of {len(faults)} faults" in told
    assert f"simulate replay {file}" in told
    assert smaller.end_s < found.case.end_s
    assert len(smaller.faults) < len(faults)
    monkeypatch.chdir(tmp_path)
    assert fleet_command.run_replay(file, Wanted()) == fleet_command.BROKEN
    told = capsys.readouterr().out
    assert "the same history as recorded" in told
    assert f"simulate replay {file}" in told
    assert list(tmp_path.iterdir()) == [file], "a case that lies in a file is not written to another one"


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


def test_a_frontend_that_is_replaced_just_before_the_faults_end_comes_back_in_time() -> None:
    plan = FleetPlan(nodes=1, hours=0.1, models=6)
    replaced = Fault(at_s=210, kind="frontend-replaced", for_s=4)
    assert play(Case(plan=plan, faults=(replaced,))).violation is None


@pytest.mark.parametrize(
    "kinds", ["", "frontend-replaced", "store-offline,slow-store", "lying-store,changed-object"]
)
def test_the_command_replays_what_it_wrote(tmp_path: Path, kinds: str) -> None:
    case = schedule(FleetPlan(nodes=2, hours=0.3, seed=9, models=6, speak="seed"))
    added = [
        Fault(at_s=130.0 + 60 * again + number, kind=kind, for_s=50, number=number + 7 * again)
        for again in range(5)
        for number, kind in enumerate(filter(None, kinds.split(",")))
    ]
    outcome = play(case.with_faults((*case.faults, *added)))
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
        ({"speak": "klingon"}, "speak is 'klingon'; it must be one of seed, newer"),
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
