"""Urls of gallery documents and model files: what the short forms stand for."""

from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

from .errors import ArtifactInvalid, ArtifactUnavailable, UnsupportedSource

HUGGING_FACE = "https://huggingface.co"
_GITHUB = ("github://", "github:")
_HUGGING_FACE = ("huggingface://", "hf://", "hf.co/")
_PLAIN = ("https://", "http://", "file://")
SUPPORTED = (*_PLAIN, "github:", "huggingface://", "hf://")

REFERENCE = ".ref"
_LONGEST_REFERENCE_BYTES = 4096  # PATH_MAX; a reference is one line


def hugging_face_endpoint(environment: Mapping[str, str]) -> str:
    """Where Hugging Face is, or the mirror an operator named instead.

    Source: LocalAI pkg/downloader/huggingface.go.
    """
    named = next(
        (environment[name] for name in ("HF_MIRROR", "HF", "HF_ENDPOINT") if environment.get(name)), ""
    )
    if named and "://" not in named:
        named = f"https://{named}"
    return (named or HUGGING_FACE).rstrip("/")


def document_url(url: str, *, hugging_face: str = HUGGING_FACE) -> str:
    """The `https://`, `http://` or `file://` url that `url` stands for.

    `github:<org>/<repo>/<path>[@<branch>]` (also `github://`) and `huggingface://<owner>/<repo>/<path>`
    (also `hf://`, `hf.co/`) are short forms, the branch `main` where none is written. Upstream crashes on
    a branch in the second one; here it is one.
    Source: LocalAI pkg/downloader/uri.go, ResolveURL.

    Raises:
        ArtifactUnavailable: a short form with parts missing.
        UnsupportedSource: anything else.
    """
    if url.startswith(f"{HUGGING_FACE}/"):
        return hugging_face + url.removeprefix(HUGGING_FACE)
    if url.startswith(_PLAIN):
        return url
    if prefix := _prefix(url, _GITHUB):
        organisation, repository, path, branch = _parts(url, prefix)
        return f"https://raw.githubusercontent.com/{organisation}/{repository}/{branch}/{path}"
    if prefix := _prefix(url, _HUGGING_FACE):
        owner, repository, path, branch = _parts(url, prefix)
        return f"{hugging_face}/{owner}/{repository}/resolve/{branch}/{path}"
    raise UnsupportedSource(url, supported=SUPPORTED)


def is_reference(url: str) -> bool:
    """Whether what lies at `url` only says where the document is."""
    return url.endswith(REFERENCE)


def referred_url(url: str, content: bytes) -> str:
    """The url of the document that the reference `content`, found at the resolved `url`, names.

    It is a path below the directory of `url`; surrounding white space does not count (upstream takes it
    as it is, and lets `..` lead anywhere: G-W33).

    Raises:
        ArtifactInvalid: it is empty, too long for a path, leads elsewhere or to another reference.
    """
    try:
        path = content[: _LONGEST_REFERENCE_BYTES + 1].decode().strip()
    except UnicodeDecodeError as error:
        raise ArtifactInvalid(url, "the reference is no text") from error
    if not path:
        raise ArtifactInvalid(url, "the reference is empty; it must name a file beside it")
    if len(content) > _LONGEST_REFERENCE_BYTES or "\n" in path:
        raise ArtifactInvalid(url, "the reference is more than one line; it must name a file beside it")
    base = url.rpartition("/")[0] + "/"
    climbs = ".." in path.split("/") or path.startswith("/") or "\\" in path or urlsplit(path).scheme
    if climbs or "?" in path or "#" in path or not urljoin(base, path).startswith(base):
        raise ArtifactInvalid(url, f"the reference {path!r} leads away; it must name a file beside it")
    if is_reference(path):
        raise ArtifactInvalid(url, f"the reference {path!r} leads to another reference")
    return base + path


def _prefix(url: str, prefixes: tuple[str, ...]) -> str:
    return next((prefix for prefix in prefixes if url.startswith(prefix)), "")


def _parts(url: str, prefix: str) -> tuple[str, str, str, str]:
    """Owner, repository, path and branch of a short form."""
    owner, _, rest = url.removeprefix(prefix).partition("/")
    repository, _, path = rest.partition("/")
    repository, _, branch = repository.partition("@")
    if not branch:
        path, _, branch = path.partition("@")
    if not (owner and repository and path):
        raise ArtifactUnavailable(url, f"write {prefix}<owner>/<repository>/<path>")
    return owner, repository, path, branch or "main"
