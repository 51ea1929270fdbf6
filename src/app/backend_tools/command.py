"""`localai-worker backends`: the backends of this node, with or without a worker running."""

from functools import partial
from typing import Annotated

import typer

from ..option_commands import OptionTableCommand, given_flags

_WIDE = {"max_content_width": 120}

backends = typer.Typer(
    help="The backends on this node: list, install, upgrade, delete, and explain what would be installed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="A backend's name: `llama-cpp`, or `gallery@llama-cpp`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


@backends.command(cls=OptionTableCommand, context_settings=_WIDE)
def explain(context: typer.Context, name: Name, *, as_json: AsJson = False) -> None:
    """Print what an install of NAME would do here and why; nothing is installed."""
    from .node import on_this_node
    from .work import explain as work

    raise typer.Exit(on_this_node(given_flags(context), partial(work, name=name, as_json=as_json)))


@backends.command("list", cls=OptionTableCommand, context_settings=_WIDE)
def list_command(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Print the backends that can be started here."""
    from .node import on_this_node
    from .work import list_backends

    raise typer.Exit(on_this_node(given_flags(context), partial(list_backends, as_json=as_json)))


@backends.command(cls=OptionTableCommand, context_settings=_WIDE)
def install(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="The backend's name in a gallery; with --uri what it will be called.")
    ] = "",
    *,
    uri: Annotated[
        str, typer.Option(help="Where to take it from: an image, an archive or a directory.")
    ] = "",
    alias: Annotated[str, typer.Option(help="A second name for it, with --uri.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Also if it is installed already.")] = False,
) -> None:
    """Install a backend from the galleries, or from --uri."""
    from ...domain.replace_backend import WantedBackend
    from .node import on_this_node
    from .work import install as work

    if not name and not uri:
        raise typer.BadParameter("name a backend, or give its --uri")
    if alias and not uri:
        raise typer.BadParameter("--alias goes with --uri; a gallery's backends have their own")
    wanted = WantedBackend(
        backend="" if uri else name, galleries=(), uri=uri, name=name if uri else "", alias=alias
    )
    raise typer.Exit(on_this_node(given_flags(context), partial(work, wanted=wanted, force=force)))


@backends.command(cls=OptionTableCommand, context_settings=_WIDE)
def upgrade(context: typer.Context, name: Name) -> None:
    """Install the backend NAME anew; the old version stays until the new one is whole."""
    from .node import on_this_node
    from .work import upgrade as work

    raise typer.Exit(on_this_node(given_flags(context), partial(work, name=name)))


@backends.command(cls=OptionTableCommand, context_settings=_WIDE)
def delete(
    context: typer.Context,
    name: Name,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also if something runs from its files.")] = False,
) -> None:
    """Delete the files of the backend NAME."""
    from .node import on_this_node
    from .work import delete as work

    raise typer.Exit(on_this_node(given_flags(context), partial(work, name=name, force=force)))
