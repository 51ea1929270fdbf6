"""`localai-worker simulate fleet` and `simulate replay`: a bar while it runs, a table, and JSON."""

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .faults import schedule
from .plan import Case, FleetPlan
from .replay import Replay
from .shrink import faults_as_text, shrink
from .simulation import Outcome, play

BROKEN = 1  # the exit code when an invariant does not hold
_LATEST = 25  # events shown before a violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to do with the outcome. A case that breaks an invariant is made smaller and written to
    `replay_file`, unless it is `known` to lie in a file already.
    """

    as_json: bool = False
    report: Path | None = None
    replay_file: Path | None = None
    known: Path | None = None


def run_fleet(plan: FleetPlan, seeds: int, jobs: int, wanted: Wanted) -> int:
    """Play `plan`, and with more `seeds` the same with those that follow, up to the first violation.

    With more than one of `jobs`, seeds are played side by side in so many processes.
    """
    console = Console(stderr=wanted.as_json, highlight=False)
    cases = [schedule(replace(plan, seed=seed)) for seed in range(plan.seed, plan.seed + seeds)]
    outcome = _one_by_one(cases, console) if min(jobs, seeds) == 1 else _side_by_side(cases, jobs, console)
    return _tell(outcome, wanted, console)


def _one_by_one(cases: list[Case], console: Console) -> Outcome:
    with _bar(console, len(cases)) as advance:
        for number, case in enumerate(cases):
            outcome = play(case, partial(_advance, advance, number, case))
            if outcome.violation is not None:
                break
    return outcome


def _side_by_side(cases: list[Case], jobs: int, console: Console) -> Outcome:
    with _bar(console, len(cases)) as advance, ProcessPoolExecutor(jobs) as pool:
        for number, outcome in enumerate(pool.map(play, cases), start=1):
            advance(number, f"seed {outcome.case.plan.seed}")
            if outcome.violation is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                break
    return outcome


def run_replay(path: Path, wanted: Wanted) -> int:
    """Play the case of a replay file again."""
    console = Console(stderr=wanted.as_json, highlight=False)
    replay = Replay.load(path)
    outcome = play(replay.case)
    if outcome.digest == replay.digest:
        console.print("the same history as recorded")
    else:
        console.print(f"another history than recorded by version {replay.version}")
    return _tell(outcome, replace(wanted, known=path), console)


def _tell(outcome: Outcome, wanted: Wanted, console: Console) -> int:
    _print_table(outcome, console)
    if wanted.report is not None:
        from .report import html_report

        wanted.report.write_text(html_report(outcome), encoding="utf-8")
        console.print(f"report: {wanted.report}")
    shown = outcome
    if outcome.violation is not None:
        if wanted.known is None:
            console.print(f"broken: {outcome.violation}; looking for a shorter way to it", soft_wrap=True)
            shown = shrink(outcome)
        _explain(shown, outcome, wanted.known or _saved(shown, wanted.replay_file), console)
    if wanted.as_json:
        print(json.dumps(as_json(outcome)))  # noqa: T201 - the last line is for programs
    return 0 if outcome.violation is None else BROKEN


def as_json(outcome: Outcome) -> dict[str, object]:
    """The figures of the report, the hash of the event log and the number of violations."""
    violation = outcome.violation
    return {
        "plan": outcome.case.to_json()["plan"],
        "history": outcome.digest,
        "events": outcome.events,
        "violations": int(violation is not None),
        "violation": str(violation or ""),
        **outcome.figures.to_json(),
    }


def _saved(shown: Outcome, path: Path | None) -> Path:
    assert shown.violation is not None
    file = path or Path(f"fleet-{shown.case.plan.seed}-{shown.violation.invariant}.json")
    Replay.of(shown).save(file)
    return file


def _explain(shown: Outcome, found: Outcome, file: Path, console: Console) -> None:
    assert shown.violation is not None
    case = shown.case
    lines = (
        f"seed {case.plan.seed}, step {shown.violation.step}: {shown.violation}",
        f"the first {case.end_s:.0f} s with {len(case.faults)} of {len(found.case.faults)} faults do it:",
        faults_as_text(case.faults),
        "what happened last:",
        *(f"  {line}" for line in shown.latest[-_LATEST:]),
        f"again: {Path(sys.argv[0]).name} simulate replay {file}",
    )
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _print_table(outcome: Outcome, console: Console) -> None:
    plan, figures = outcome.case.plan, outcome.figures
    table = Table(
        title=f"{plan.nodes} nodes, {outcome.case.end_s / 3600:g} h, seed {plan.seed}", show_header=False
    )
    table.add_row("events", f"{outcome.events:,}")
    table.add_row("history", outcome.digest)
    for name, count in sorted(figures.counts.items()):
        table.add_row(name, f"{count:,}")
    for command in sorted(figures.latencies):
        p50, p95, p99 = figures.percentiles(command)
        table.add_row(f"{command}: p50 / p95 / p99", f"{p50:.2f} / {p95:.2f} / {p99:.2f} s")
    table.add_row("faults", str(len(figures.faults)))
    table.add_row("violations", "none" if outcome.violation is None else str(outcome.violation))
    console.print(table)


def _advance(advance: Callable[[float, str], None], number: int, case: Case, at_s: float) -> None:
    advance(number + at_s / case.end_s, f"seed {case.plan.seed}")


@contextmanager
def _bar(console: Console, seeds: int) -> Iterator[Callable[[float, str], None]]:
    """A progress bar over all seeds; it is moved by the number of those done and what is at work."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("simulating", total=seeds)

        def advance(done: float, what: str) -> None:
            progress.update(task, completed=done, description=what)

        yield advance
