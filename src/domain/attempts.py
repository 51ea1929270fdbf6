"""Trying again what a server could not do at the moment."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from .errors import ArtifactInvalid, ArtifactMissing, ArtifactUnavailable, DownloadRefused

log = logging.getLogger(__name__)

R = TypeVar("R")


async def in_attempts(work: Callable[[], Awaitable[R]], *, attempts: int, first_wait_s: float) -> R:
    """What `work` gives, tried `attempts` times, `first_wait_s` and then twice as much apart each time.

    A definite no (`ArtifactMissing`, `DownloadRefused`) and whatever is not the source's fault pass through.
    Source: LocalAI pkg/downloader.

    Raises:
        ArtifactUnavailable, ArtifactInvalid: the last attempt's.
    """
    for attempt in range(1, attempts):
        try:
            return await work()
        except (ArtifactMissing, DownloadRefused):
            raise
        except (ArtifactUnavailable, ArtifactInvalid) as error:
            wait_s = first_wait_s * 2 ** (attempt - 1)
            log.warning("download failed, next attempt in %g s: error=%s", wait_s, error)
            await anyio.sleep(wait_s)
    return await work()
