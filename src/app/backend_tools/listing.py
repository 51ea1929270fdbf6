"""What `localai-worker backends list` prints."""

import json
from collections.abc import Iterable, Sequence
from typing import TextIO

from ...domain.installed import InstalledBackend

_COLUMNS = ("name", "kind", "version", "installed", "from")


def backends_json(backends: Iterable[InstalledBackend]) -> str:
    """One JSON list, an object for each name that can be started."""
    return json.dumps(
        [
            {
                "name": each.name,
                "kind": kind(each),
                "runnable": each.is_runnable,
                "run_file": str(each.run_file),
                "version": each.metadata.version,
                "installed_at": each.metadata.installed_at,
                "gallery_url": each.metadata.gallery_url,
                "uri": each.metadata.uri,
                "digest": each.metadata.digest,
            }
            for each in backends
        ]
    )


def write_backends(backends: Sequence[InstalledBackend], out: TextIO) -> None:
    """A table for people."""
    if not backends:
        out.write("no backends are installed\n")
        return
    rows = [_COLUMNS, *(_row(each) for each in backends)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        out.write("  ".join([*cells, row[-1]]).rstrip() + "\n")


def kind(backend: InstalledBackend) -> str:
    """What the name stands for."""
    if backend.is_system:
        return "system"
    if backend.is_meta:
        return f"meta of {backend.metadata.meta_backend_for}"
    return f"alias of {backend.metadata.name}" if backend.is_other_name else "backend"


def _row(backend: InstalledBackend) -> tuple[str, ...]:
    told = backend.metadata
    name = backend.name if backend.is_runnable else f"{backend.name} (no program)"
    source = told.uri or told.gallery_url or str(backend.run_file.parent)
    return (name, kind(backend), told.version, told.installed_at, source)
