"""`localai-worker simulate fleet` and `simulate replay`, beside the frontend's commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..startup import exit_code
from .scenario.command import simulate

__all__ = ["simulate"]

_REPLAY_HELP = (
    "Where to write the shortest case that breaks an invariant; the name says which one by default."
)


@simulate.command()
def fleet(
    *,
    nodes: Annotated[int, typer.Option(help="Workers, each on a machine of its own.")] = 20,
    hours: Annotated[float, typer.Option(help="Virtual hours.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Every random choice comes from it.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Play so many seeds, this one and the next ones.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Seeds played at once, each in a process.")] = 1,
    faults: Annotated[
        str, typer.Option(help="none, default, storm, or kinds of faults with commas between.")
    ] = "default",
    models: Annotated[int, typer.Option(min=0, help="Models; 0 takes half as many as nodes.")] = 0,
    requests: Annotated[float, typer.Option(min=0, help="Requests per node and hour.")] = 20.0,
    operations: Annotated[
        float, typer.Option(min=0, help="Commands of administrators per node and hour.")
    ] = 1.5,
    speak: Annotated[str, typer.Option(help="The frontend's generation: seed or newer.")] = "newer",
    report: Annotated[Path | None, typer.Option(help="Write a page with timelines (HTML) there.")] = None,
    replay_file: Annotated[Path | None, typer.Option(help=_REPLAY_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Run workers in virtual time against one frontend, break things, and check what must hold.

    The same options give the same history, bit for bit. Exit code 1: an invariant did not hold.
    """

    def work() -> int:
        from .fleet.command import Wanted, run_fleet
        from .fleet.plan import FleetPlan

        plan = FleetPlan(
            nodes=nodes,
            hours=hours,
            seed=seed,
            faults=faults,
            models=models,
            requests=requests,
            operations=operations,
            speak=speak,
        )
        return run_fleet(plan, seeds, jobs, Wanted(as_json=as_json, report=report, replay_file=replay_file))

    raise typer.Exit(_exit_code(work))


@simulate.command()
def replay(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What `simulate fleet` wrote.")],
    *,
    report: Annotated[Path | None, typer.Option(help="Write a page with timelines (HTML) there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Play a case again in which an invariant did not hold. Exit code 1: it still does not."""

    def work() -> int:
        from .fleet.command import Wanted, run_replay

        return run_replay(file, Wanted(as_json=as_json, report=report))

    raise typer.Exit(_exit_code(work))


def _exit_code(work: Callable[[], int]) -> int:
    """As `exit_code`, but 2 for a plan that cannot be played: 1 says that an invariant did not hold."""
    from .fleet.plan import WrongPlan

    def planned() -> int:
        try:
            return work()
        except WrongPlan as error:
            typer.echo(f"localai-worker: {error}", err=True)
            return 2

    return exit_code(planned)
