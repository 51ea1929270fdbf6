"""Images as backends are: shared libraries, programs and Python files of this machine, in some layers."""

import io
import sys
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

from isal import isal_zlib

from tests.archives import digest_of
from tests.registry import Image

MIB = 2**20
_LARGEST_BYTES = 96 * MIB


def real_files() -> Iterator[tuple[str, Path]]:
    """Files that a backend could hold, small and large mixed, again and again under new names."""
    roots = [Path(sys.prefix) / "lib", Path(sys.prefix) / "bin", Path("/usr/lib")]
    found = [
        path
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and 0 < path.stat().st_size < _LARGEST_BYTES
    ]
    for number, path in enumerate(cycle(found)):
        yield f"{number // len(found)}/{path.as_posix().lstrip('/')}", path


def real_layers(total_bytes: int, count: int, *, level: int = 6) -> list[bytes]:
    """`count` gzipped layers with `total_bytes` of content in all; the last one has the run.sh."""
    files = real_files()
    plain = []
    for number in range(count):
        stream, size_bytes = io.BytesIO(), 0
        with tarfile.open(fileobj=stream, mode="w") as archive:
            if number == count - 1:
                run_file = tarfile.TarInfo("run.sh")
                run_file.mode = 0o755
                archive.addfile(run_file)
            while size_bytes < total_bytes // count:
                name, path = next(files)
                try:
                    archive.add(path, f"{number}/{name}", recursive=False, filter=_as_built)
                except OSError:
                    continue
                size_bytes += path.stat().st_size
        plain.append(stream.getvalue())
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda content: zipped(content, level), plain))


def _as_built(about: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whole seconds, as image builders write them; fractions would give every file a header of its own."""
    about.mtime = int(about.mtime)
    return about


def zipped(content: bytes, level: int) -> bytes:
    """gzip as image builders write it; level 0 and 1 by isal, for much content in little time."""
    if level > 1:
        return zlib.compress(content, level, 31)
    return isal_zlib.compress(content, level, 31)


def real_image(total_bytes: int, count: int) -> Image:
    """An image of such layers, whole enough for other tools."""
    layers = real_layers(total_bytes, count)
    diff_ids = [digest_of(isal_zlib.decompress(layer, 31)) for layer in layers]
    return Image(layers, diff_ids=diff_ids)
