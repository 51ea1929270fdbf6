"""Which files on this node's disk a backend's name means, for those who replace or delete them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .backend import parse_backend_name
from .backend_metadata import BackendMetadata
from .installed import InstalledBackend, InstalledBackends, is_leftover, local_name, named


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFiles:
    """What lies on disk under one name.

    Attributes:
        names: what a process of this backend, and of no other, may be recorded under.
        places: every path its programs may run from.
        doomed: what a deletion removes, in that order; those of `places` that nobody else needs.
        is_system: it came with the machine and cannot be deleted.
    """

    names: frozenset[str]
    places: frozenset[Path] = frozenset()
    doomed: tuple[Path, ...] = ()
    is_system: bool = False


async def backend_files(installed: InstalledBackends, name: str) -> BackendFiles:
    """The files that `name` means: a directory, an alias, a meta backend, or `gallery@` and one of these.

    An alias means the directory that it starts, as it is listed; where it hides a meta backend of the same
    name, that one too. A meta backend means its own directory and the one it points to; the latter is doomed
    only if no other meta backend points to it (G-W23). What is not listed, such as a directory without a
    program or a plain program, means itself. Nothing at all has neither places nor doomed.
    Source: LocalAI core/gallery/backends.go, DeleteBackendFromSystem.

    Raises:
        UnsafeBackendName: nothing is listed under it, and no file could be.
        FileUnreadable: the backends cannot be listed.
    """
    names = {name, local_name(name)}
    listed = named(await installed.scan(), name)
    by_directory = await installed.metadata()
    if listed is None:
        directory = _called(by_directory, local_name(name))
        if directory is None:
            return await _unlisted(installed, name, frozenset(names))
        listed = InstalledBackend(name=directory, run_file=installed.backends_path / directory / "run.sh")
    names.add(listed.name)
    if listed.is_system:
        return BackendFiles(
            names=frozenset(names), places=frozenset({listed.run_file.parent}), is_system=True
        )
    metas = {
        directory: metadata.meta_backend_for
        for directory, metadata in by_directory.items()
        if metadata.meta_backend_for
    }
    own_metas = [d for d in metas if (by_directory[d].name or d) == listed.name]
    needed = {pointed for directory, pointed in metas.items() if directory not in own_metas}
    pointed = [metas[directory] for directory in own_metas]
    started = [] if listed.is_meta else [listed.run_file.parent.name]
    doomed = [*started, *(each for each in pointed if each not in needed), *own_metas]
    path = installed.backends_path
    return BackendFiles(
        names=frozenset(names),
        places=frozenset(path / each for each in (*started, *pointed, *own_metas)),
        doomed=tuple(path / each for each in dict.fromkeys(doomed)),
    )


def _called(by_directory: Mapping[str, BackendMetadata], name: str) -> str | None:
    """The first directory, no meta backend's, whose metadata has this `name`."""
    for directory, metadata in by_directory.items():
        if metadata.name == name and not metadata.meta_backend_for:
            return directory
    return None


async def _unlisted(installed: InstalledBackends, name: str, names: frozenset[str]) -> BackendFiles:
    safe = parse_backend_name(local_name(name))
    place = installed.backends_path / safe
    if not is_leftover(safe) and await installed.filesystem.stat(place) is not None:
        return BackendFiles(names=names, places=frozenset({place}), doomed=(place,))
    plain = await installed.find(name)
    if plain is not None:
        return BackendFiles(names=names, places=frozenset({plain.run_file}), is_system=plain.is_system)
    return BackendFiles(names=names)
