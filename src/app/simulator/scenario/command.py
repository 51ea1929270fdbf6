"""`localai-worker simulate`: a frontend to join, and scenarios to play."""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from ...startup import exit_code

Speak = Literal["seed", "newer"]

simulate = typer.Typer(
    help="Play LocalAI's frontend, by hand or by scenario, or a whole fleet.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@simulate.command()
def frontend(
    *,
    nats_url: Annotated[str, typer.Option(envvar="LOCALAI_NATS_URL", help="The NATS server.")] = "",
    http_addr: Annotated[str, typer.Option(help="Where workers register, HOST:PORT.")] = "127.0.0.1:8080",
    reach: Annotated[str, typer.Option(help="The host by which workers reach it; default: that HOST.")] = "",
    token: Annotated[
        str, typer.Option(envvar="LOCALAI_REGISTRATION_TOKEN", help="What nodes must know.")
    ] = "",
    speak: Annotated[Speak, typer.Option(help="The generation of the protocol.")] = "newer",
    approve: Annotated[bool, typer.Option(help="Approve nodes by themselves.")] = True,
    models: Annotated[Path | None, typer.Option(help="The frontend's models directory.")] = None,
    gallery: Annotated[list[str] | None, typer.Option(help="Another gallery's URL.")] = None,
    scenario: Annotated[
        list[Path] | None, typer.Option(exists=True, help="Play this on nodes of the names it says, and end.")
    ] = None,
) -> None:
    """Be a frontend that workers join; obey the lines of stdin (`help` lists them)."""

    def work() -> int:
        import anyio
        from rich.console import Console

        from ...demo.report import StepReport
        from .document import read_scenario
        from .serve import FrontendOptions, serve_by_hand

        host, _, port = http_addr.rpartition(":")
        if not port.isdigit():
            raise typer.BadParameter(f"{http_addr!r} is not HOST:PORT", param_hint="--http-addr")
        options = FrontendOptions(
            nats_url=nats_url or "nats://127.0.0.1:4222",
            host=host or "0.0.0.0",
            port=int(port),
            reach=reach or host or "127.0.0.1",
            token=token,
            generation=speak,
            approve=approve,
            galleries=gallery or (),
            models=models,
        )
        scenarios = [read_scenario(path) for path in scenario or ()]
        return anyio.run(serve_by_hand, options, StepReport(Console(highlight=False)), scenarios)

    raise typer.Exit(exit_code(work))


@simulate.command()
def play(
    files: Annotated[list[Path] | None, typer.Argument(exists=True, help="Scenario files.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Play the scenarios that come along.")] = False,
    speak: Annotated[Speak | None, typer.Option(help="Only this generation of the protocol.")] = None,
    show: Annotated[bool, typer.Option("--list", help="List the scenarios that come along.")] = False,
) -> None:
    """Play scenarios on a cluster of real parts on this machine: NATS, this package's workers, backends."""

    def work() -> int:
        import anyio

        from .document import read_scenario
        from .run import library, play_all

        known = library()
        if show:
            for scenario in known:
                typer.echo(f"{scenario.name}  [{', '.join(scenario.covers)}]")
            return 0
        chosen = [*(known if everything else ()), *(read_scenario(path) for path in files or ())]
        if not chosen:
            raise typer.BadParameter("name scenario files, or --all")
        with tempfile.TemporaryDirectory(prefix="localai-worker-scenarios-") as directory:
            failed: int = anyio.run(play_all, Path(os.path.realpath(directory)), chosen, speak)
        return 1 if failed else 0

    raise typer.Exit(exit_code(work))
