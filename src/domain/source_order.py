"""In which order the sources of a payload are tried, and when a fallback tag may stand in."""

from collections.abc import Sequence

from .errors import ArtifactMissing, WorkerError

# The words upstream's worker always uses (a frontend may configure others for itself).
_LATEST, _MASTER, _DEVELOPMENT = "latest-", "master-", "-development"


def next_source(sources: Sequence[str], failures: Sequence[WorkerError]) -> str | None:
    """The uri to try after `failures`, one for each source tried so far; None when there is no other.

    `sources` are the payload's own uri and its mirrors. When all have failed and the first said for
    certain that it has no such thing, the build of the master branch under the same name stands in, and
    then that of its development variant. An outage never installs another build (G-W2); upstream falls
    back after any failure. Source: LocalAI core/gallery/backends.go, InstallBackend.
    """
    tried = len(failures)
    if tried < len(sources):
        return sources[tried]
    fallbacks = _fallback_tags(sources[0])
    number = tried - len(sources)
    if number >= len(fallbacks):
        return None
    answer = failures[0] if number == 0 else failures[-1]
    return fallbacks[number] if isinstance(answer, ArtifactMissing) else None


def _fallback_tags(uri: str) -> tuple[str, ...]:
    if uri.startswith("/") or _LATEST not in uri:
        return ()
    master = uri.replace(_LATEST, _MASTER, 1)
    return (master,) if _DEVELOPMENT in master else (master, master + _DEVELOPMENT)
