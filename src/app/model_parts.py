"""What fetching models is made of, each adapter imported only when it is built."""

from typing import Any


def downloads() -> Any:
    """Files on web servers."""
    from ..adapters.downloads.http import HttpDownloads

    return HttpDownloads()


def archives() -> Any:
    """Archives among a model's files."""
    from ..adapters.archives.local import LocalArchives

    return LocalArchives()
