"""From a reference to the one image that runs on this platform."""

from dataclasses import dataclass

from ....domain.errors import ArtifactInvalid, ArtifactUnavailable
from ....domain.image_reference import ImageReference, MalformedReference
from ..image_manifest import Descriptor, choose_manifest, field_of, parse_document, parse_manifest
from ..streams import is_digest
from ..web.flight import Flight
from .client import FetchedManifest, RegistryClient

_NESTED = 4
_LAYERS = 512
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image: `digest` is what the reference names, `manifest_digest` the platform's own manifest.

    Lowest layer first; `blobs` has each only once.
    """

    reference: ImageReference
    digest: str
    manifest_digest: str
    layers: tuple[Descriptor, ...]

    @property
    def blobs(self) -> dict[str, int]:
        """Sizes by digest, in the order of the layers."""
        return {layer.digest: layer.size_bytes for layer in self.layers}

    @property
    def size_bytes(self) -> int:
        """Of all layers as they are stored; one that occurs twice is unpacked twice."""
        return sum(layer.size_bytes for layer in self.layers)


def parse_reference(uri: str) -> ImageReference:
    """The reference in `uri`.

    Raises:
        ArtifactUnavailable: it names no image.
    """
    try:
        return ImageReference.parse(uri)
    except MalformedReference as error:
        raise ArtifactUnavailable(uri, error.reason) from error


def resolve(client: RegistryClient, uri: str, platform: str, flight: Flight) -> ResolvedImage:
    """Ask the registry which image `uri` is on `platform` (`linux/amd64`).

    Of an index the first entry for the platform counts; an image on its own is taken whatever it was
    built for. Source: LocalAI pkg/oci/image.go, GetImage.

    Raises:
        ArtifactMissing, ArtifactUnavailable: the registry has none, or does not answer.
        ArtifactInvalid: none for this platform, or nothing that can be an image.
    """
    reference = parse_reference(uri)
    found = client.manifest(reference, flight, uri=uri)
    digest = found.digest
    for _ in range(_NESTED):
        document = parse_document(found.content, what="its manifest", uri=uri)
        if not _is_index(found, document, uri):
            return ResolvedImage(reference, digest, found.digest, _layers(found, document, uri))
        chosen = choose_manifest(document, platform, what="its index", uri=uri, any_single=False)
        _require_digest(chosen, uri)
        found = client.manifest(reference.at(chosen.digest), flight, uri=uri)
    raise ArtifactInvalid(uri, f"indexes nested deeper than {_NESTED}")


def _is_index(found: FetchedManifest, document: object, uri: str) -> bool:
    media_type = field_of(document, "mediaType", what="its manifest", uri=uri) or found.media_type
    if isinstance(media_type, str) and media_type.endswith(("index.v1+json", "manifest.list.v2+json")):
        return True
    return field_of(document, "manifests", what="its manifest", uri=uri) is not None


def _layers(found: FetchedManifest, document: object, uri: str) -> tuple[Descriptor, ...]:
    version = field_of(document, "schemaVersion", what="its manifest", uri=uri)
    if version == 1 or found.media_type.startswith(_SCHEMA_1):
        raise ArtifactInvalid(uri, "an image of the old form (schema 1); push it with a newer docker")
    _, layers = parse_manifest(document, what="its manifest", uri=uri)
    if not layers:
        raise ArtifactInvalid(uri, "an image without layers")
    if len(layers) > _LAYERS:
        raise ArtifactInvalid(uri, f"an image of {len(layers)} layers, {_LAYERS} are taken")
    sizes: dict[str, int] = {}
    for layer in layers:
        _require_digest(layer, uri)
        if sizes.setdefault(layer.digest, layer.size_bytes) != layer.size_bytes:
            raise ArtifactInvalid(uri, f"layer {layer.digest} has two sizes in its manifest")
    return layers


def _require_digest(descriptor: Descriptor, uri: str) -> None:
    if not is_digest(descriptor.digest):
        raise ArtifactInvalid(uri, f"{descriptor.digest!r} is no digest; sha256 and sha512 are understood")
