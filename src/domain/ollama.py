"""Models in Ollama's registry: `ollama://[namespace/]name[:tag]`."""

import json
import re

from .errors import ArtifactInvalid, ArtifactUnavailable

OLLAMA_REGISTRY = "https://registry.ollama.ai"
_MODEL = "application/vnd.ollama.image.model"
_NAME = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)?")
_TAG = re.compile(r"[A-Za-z0-9._-]+")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def ollama_manifest_url(uri: str, registry: str) -> str:
    """Where the manifest of the model `uri` lies.

    Names without a namespace are below `library`. Upstream asks for `library/<namespace>` whatever comes
    after it. Source: LocalAI pkg/oci/ollama.go.

    Raises:
        ArtifactUnavailable: it names no model.
    """
    repository, tag = _split(uri)
    return f"{registry}/v2/{repository}/manifests/{tag}"


def ollama_blob(uri: str, manifest: bytes, registry: str) -> tuple[str, str]:
    """The url of the model's weights, and their SHA-256.

    Raises:
        ArtifactInvalid: the manifest has no weights.
    """
    repository, _ = _split(uri)
    try:
        layers = json.loads(manifest)["layers"]
        digest = next(each["digest"] for each in layers if each["mediaType"] == _MODEL)
        found = _DIGEST.fullmatch(digest)
    except (ValueError, KeyError, TypeError, StopIteration, RecursionError) as error:
        raise ArtifactInvalid(uri, "its manifest names no model layer") from error
    if found is None:
        raise ArtifactInvalid(uri, f"its model layer has the digest {digest!r}, want sha256:<hex>")
    return f"{registry}/v2/{repository}/blobs/{digest}", found[1]


def _split(uri: str) -> tuple[str, str]:
    name, _, tag = uri.removeprefix("ollama://").partition(":")
    if not _NAME.fullmatch(name) or not _TAG.fullmatch(tag or "latest") or ".." in uri:
        raise ArtifactUnavailable(uri, "write ollama://[namespace/]name[:tag]")
    return name if "/" in name else f"library/{name}", tag or "latest"
