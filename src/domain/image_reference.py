"""Names of images in registries, as `docker pull` takes them."""

import re
from dataclasses import dataclass, replace
from typing import Self

from .errors import WorkerError

OCI_SCHEME = "oci://"
_HUB = "docker.io"
_HUB_NAMES = frozenset({_HUB, "index.docker.io", "registry-1.docker.io"})
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9_]+(?:[._/-]+[a-z0-9_]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_LONGEST_REPOSITORY = 255


@dataclass(eq=False)
class MalformedReference(WorkerError):
    """A text that names no image."""

    text: str
    reason: str

    def __str__(self) -> str:
        return (
            f'"{self.text}" is no image reference: {self.reason}; write [oci://]host/name[:tag][@sha256:...]'
        )


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image in a registry: by its `digest` where there is one, else by its `tag`.

    `host` may have a port; Docker Hub is `docker.io`, whatever name it was given.
    Source: go-containerregistry pkg/name, the grammar LocalAI uses.
    """

    host: str
    repository: str
    tag: str = "latest"
    digest: str = ""

    @classmethod
    def parse(cls, uri: str) -> Self:
        """The reference in `uri`, with or without `oci://`.

        The first part is a host if it has a dot or a port, or is `localhost`; else the image is on
        Docker Hub, where single names lie below `library/`.

        Raises:
            MalformedReference: with what is wrong.
        """
        text = uri.removeprefix(OCI_SCHEME)
        rest, at, digest = text.partition("@")
        if at and not _DIGEST.fullmatch(digest):
            raise MalformedReference(uri, f"{digest!r} is no digest")
        name, colon, tag = rest.rpartition(":")
        if not colon or "/" in tag:
            name, tag = rest, ""
        elif not _TAG.fullmatch(tag):
            raise MalformedReference(uri, f"{tag!r} is no tag")
        host, repository = _split_host(name)
        if not _HOST.fullmatch(host):
            raise MalformedReference(uri, f"{host!r} is no host")
        if not _REPOSITORY.fullmatch(repository) or len(repository) > _LONGEST_REPOSITORY:
            raise MalformedReference(uri, f"{repository!r} is no name of a repository (lower-case letters)")
        if host in _HUB_NAMES:
            host = _HUB
            repository = repository if "/" in repository else f"library/{repository}"
        return cls(host, repository, tag or "latest", digest)

    @property
    def version(self) -> str:
        """What a registry is asked for: the digest, else the tag."""
        return self.digest or self.tag

    @property
    def is_on_hub(self) -> bool:
        return self.host == _HUB

    def at(self, digest: str) -> "ImageReference":
        """The manifest `digest` of the same repository."""
        return replace(self, tag="", digest=digest)

    def tagged(self, tag: str) -> "ImageReference":
        """What the same repository has under another tag."""
        return replace(self, tag=tag, digest="")

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}" + (f"@{self.digest}" if self.digest else f":{self.tag}")


def names_image(uri: str) -> bool:
    """Whether a payload's `uri` means an image in a registry.

    That is `oci://...`, and without a scheme whatever reads as `host/name` or `namespace/name:tag`: the
    official galleries name their mirrors on Docker Hub like that, which upstream takes for URLs (G-W1).
    """
    if uri.startswith(OCI_SCHEME):
        return True
    if "://" in uri or "/" not in uri:
        return False
    try:
        reference = ImageReference.parse(uri)
    except MalformedReference:
        return False
    is_tagged = ":" in uri.rpartition("/")[2] or bool(reference.digest)
    return is_tagged or not reference.is_on_hub or uri.split("/")[0] in _HUB_NAMES


def _split_host(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return _HUB, name
