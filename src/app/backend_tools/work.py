"""What the `backends` commands do, on the services of this node."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...domain.backend_files import backend_files
from ...domain.backend_metadata import BackendMetadata
from ...domain.explain_backend import Explanation
from ...domain.replace_backend import WantedBackend
from ..container import Container
from .explanation_text import explanation_json, explanation_text
from .listing import backends_json, write_backends
from .occupants import occupants


async def explain(container: Container, *, name: str, as_json: bool) -> int:
    """Print what an install would do; 0 if it would succeed or is done already."""
    service = container.explanation()
    found: Explanation = await service.explain(name, container.settings().backend_galleries)
    print_line(explanation_json(found) if as_json else explanation_text(found))
    return 0 if found.installed is not None or (found.source is not None and not found.problem) else 1


async def list_backends(container: Container, *, as_json: bool) -> int:
    """Print every name that can be started."""
    scanned = await container.installed().scan()
    backends = [scanned[name] for name in sorted(scanned)]
    if as_json:
        print_line(backends_json(backends))
    else:
        write_backends(backends, sys.stdout)
    return 0


async def install(container: Container, *, wanted: WantedBackend, force: bool) -> int:
    """Install what is missing, or with `force` anew."""
    from rich.console import Console  # late: rich takes as long to import as everything else

    from .progress_bar import shown

    installer = container.installer()
    with shown(Console()) as listen:
        backend = await installer.ensure(
            backend=wanted.backend,
            galleries=wanted.galleries or container.settings().backend_galleries,
            uri=wanted.uri,
            name=wanted.name,
            alias=wanted.alias,
            force=force,
            listen=listen,
        )
    print_line(f"{backend.name}: {backend.run_file}")
    return 0


async def upgrade(container: Container, *, name: str) -> int:
    """Install what is there anew; processes that run go on with the old files until they are restarted."""
    files = await backend_files(container.installed(), name)
    if not files.doomed:
        print_line(
            f"nothing is installed under {name}; `localai-worker backends install {name}` does that",
            error=True,
        )
        return 1
    pids = occupants(files.places)
    wanted = _as_installed(name, await container.installed().metadata(), files.doomed)
    done = await install(container, wanted=wanted, force=True)
    if pids:
        told = ", ".join(map(str, pids))
        print_line(
            f"still running from the old files until the worker restarts them: processes {told}", error=True
        )
    return done


def _as_installed(
    name: str, by_directory: Mapping[str, BackendMetadata], places: Sequence[Path]
) -> WantedBackend:
    """What installs `name` anew: the galleries, or the uri that an external backend came from."""
    for place in places:
        told = by_directory.get(place.name)
        if told is not None and told.uri and not told.gallery_url:
            return WantedBackend(backend="", galleries=(), uri=told.uri, name=place.name, alias=told.alias)
    return WantedBackend(backend=name, galleries=())


async def delete(container: Container, *, name: str, force: bool) -> int:
    """Delete the files of a backend, unless something runs from them."""
    files = await backend_files(container.installed(), name)
    if not files.doomed and not files.is_system:
        print_line(f"nothing is installed under {name}", error=True)
        return 1
    pids = occupants(files.doomed)
    if pids and not force:
        told = ", ".join(map(str, pids))
        print_line(
            f"{name} is running (processes {told}); "
            "delete it through the frontend, which stops it, or with --force",
            error=True,
        )
        return 1
    await container.deletion().delete(name)
    for place in files.doomed:
        print_line(f"deleted {place}")
    return 0


def print_line(text: str, *, error: bool = False) -> None:
    """One line for people."""
    stream = sys.stderr if error else sys.stdout
    stream.write(f"{text}\n")
