"""Image indexes and manifests as JSON: which image to take, and which layers it has."""

import json
import platform as python_platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...domain.errors import ArtifactInvalid

# What images call a machine that Python calls otherwise.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob as an index or a manifest names it. `platform` is `<os>/<architecture>`, any variant."""

    digest: str
    size_bytes: int
    media_type: str = ""
    platform: str = "linux/amd64"  # what one without a platform counts as (go-containerregistry)

    @property
    def is_index(self) -> bool:
        return self.media_type.endswith(("image.index.v1+json", "manifest.list.v2+json"))


def host_platform() -> str:
    """The platform whose images run here."""
    machine = python_platform.machine().lower()
    return f"{python_platform.system().lower()}/{_ARCHITECTURES.get(machine, machine)}"


def parse_document(content: bytes, *, what: str, uri: str) -> object:
    """The JSON document `content`.

    Raises:
        ArtifactInvalid: it is no JSON.
    """
    try:
        document: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ArtifactInvalid(uri, f"{what} is no JSON: {error}") from error
    return document


def choose_manifest(
    index: object, platform: str, *, what: str, uri: str, one_image: bool = False, any_single: bool = True
) -> Descriptor:
    """The entry of an index to go on with: the only one, or the first for `platform`.

    An index with a single entry is taken as it is, unless `any_single` is off. With `one_image`, several
    entries for the platform are several images, and nobody can tell which one is meant.

    Raises:
        ArtifactInvalid: none fits, several do, or it is no index.
    """
    found = _descriptors(index, "manifests", what=what, uri=uri)
    fitting = (
        found if any_single and len(found) == 1 else [each for each in found if each.platform == platform]
    )
    if not fitting:
        platforms = ", ".join(sorted({each.platform for each in found})) or "none"
        raise ArtifactInvalid(uri, f"{what} has no image for {platform}; it has {platforms}")
    if one_image and len({each.digest for each in fitting}) > 1:
        raise ArtifactInvalid(uri, f"{what} names {len(fitting)} images for {platform}; save a single one")
    return fitting[0]


def parse_manifest(
    manifest: object, *, what: str, uri: str, any_type: bool = False
) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """The config and the layers of an image, lowest layer first; with `any_type` also of something else.

    Raises:
        ArtifactInvalid: it is no image manifest (schema 2 or OCI), or a layer is no tar archive.
    """
    config = _descriptor(_object(manifest, what, uri).get("config"), what=f"config of {what}", uri=uri)
    layers = _descriptors(manifest, "layers", what=what, uri=uri)
    for layer in layers:
        if not any_type and layer.media_type and ".tar" not in layer.media_type:
            raise ArtifactInvalid(uri, f"layer {layer.digest} is {layer.media_type}, not a tar archive")
    return config, tuple(layers)


def texts(document: object, *, what: str, uri: str) -> tuple[str, ...]:
    """`document` as a list of texts.

    Raises:
        ArtifactInvalid: it is something else.
    """
    if not isinstance(document, list) or not all(isinstance(each, str) for each in document):
        raise ArtifactInvalid(uri, f"{what} is no list of texts")
    return tuple(document)


def field_of(document: object, key: str, *, what: str, uri: str) -> object:
    """The value of `key` in the JSON object `document`; None where it is absent.

    Raises:
        ArtifactInvalid: it is no object.
    """
    return _object(document, what, uri).get(key)


def _descriptors(document: object, key: str, *, what: str, uri: str) -> Sequence[Descriptor]:
    entries = _object(document, what, uri).get(key)
    if not isinstance(entries, list):
        raise ArtifactInvalid(uri, f"{what} has no list of {key}")
    return [_descriptor(entry, what=f"{key} of {what}", uri=uri) for entry in entries]


def _descriptor(entry: object, *, what: str, uri: str) -> Descriptor:
    fields = _object(entry, what, uri)
    digest, size_bytes = fields.get("digest"), fields.get("size")
    media_type = fields.get("mediaType", "")
    platform = fields.get("platform") or {"os": "linux", "architecture": "amd64"}
    if (
        not isinstance(digest, str)
        or not isinstance(size_bytes, int)
        or size_bytes < 0
        or not isinstance(media_type, str)
        or not isinstance(platform, dict)
    ):
        raise ArtifactInvalid(uri, f"{what}: a broken descriptor")
    platform_text = f"{platform.get('os')}/{platform.get('architecture')}"
    return Descriptor(digest, size_bytes, media_type, platform_text)


def _object(document: object, what: str, uri: str) -> Mapping[str, object]:
    if not isinstance(document, dict):
        raise ArtifactInvalid(uri, f"{what} is no JSON object")
    return document
