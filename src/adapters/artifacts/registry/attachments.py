"""What is attached to images in registries: signatures, for one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ....domain.errors import ArtifactInvalid, ArtifactMissing, UnsupportedSource
from ....domain.image_reference import ImageReference, names_image
from ....domain.ports.artifacts import OLD_SIGNATURE, AttachedArtifact
from ..image_manifest import Descriptor, field_of, parse_document, parse_manifest
from ..streams import is_digest
from ..web.flight import Flight, in_flight, run
from .client import DOCUMENT_BYTES, RegistryClient
from .resolve import parse_reference

_ATTACHED = 100  # of one type; nobody signs an image more often


@dataclass(frozen=True)
class RegistryAttachments:
    """An `ImageAttachments` that asks the registry an image lies in."""

    client: RegistryClient

    async def attached(self, uri: str, digest: str, *, artifact_type: str) -> Sequence[AttachedArtifact]:
        """Runs in a thread of its own."""
        if not names_image(uri):
            raise UnsupportedSource(uri, supported=("oci://host/name:tag", "host/name:tag"))
        async with in_flight() as flight:
            return await run(partial(self._attached, uri, digest, artifact_type, flight), flight)

    def _attached(
        self, uri: str, digest: str, artifact_type: str, flight: Flight
    ) -> Sequence[AttachedArtifact]:
        reference = parse_reference(uri)
        if artifact_type == OLD_SIGNATURE:
            return self._old_signatures(reference, digest, flight, uri)
        content = self.client.referrers(reference, digest, flight, uri=uri)
        if content is None:
            return ()
        what = f"the list of what is attached to {digest}"
        entries = field_of(parse_document(content, what=what, uri=uri), "manifests", what=what, uri=uri)
        if not isinstance(entries, list):
            raise ArtifactInvalid(uri, f"{what} has no list of manifests")
        wanted = [entry for entry in entries if _type_of(entry).startswith(artifact_type)]
        if len(wanted) > _ATTACHED:
            raise ArtifactInvalid(uri, f"{what} has {len(wanted)} entries, {_ATTACHED} are taken")
        return [self._read(reference, entry, flight, uri) for entry in wanted]

    def _read(
        self, reference: ImageReference, entry: dict[str, object], flight: Flight, uri: str
    ) -> AttachedArtifact:
        digest = entry.get("digest")
        if not isinstance(digest, str) or not is_digest(digest):
            raise ArtifactInvalid(uri, f"what is attached has the digest {digest!r}")
        found = self.client.manifest(reference.at(digest), flight, uri=uri)
        layers = _layers(found.content, f"attached manifest {digest}", uri)
        if not layers:
            raise ArtifactInvalid(uri, f"attached manifest {digest} has no content")
        return AttachedArtifact(_type_of(entry), self._content(reference, layers[0], flight, uri))

    def _old_signatures(
        self, reference: ImageReference, digest: str, flight: Flight, uri: str
    ) -> Sequence[AttachedArtifact]:
        """One for each layer of the image that the tag names."""
        tag = f"{digest.replace(':', '-', 1)}.sig"
        try:
            found = self.client.manifest(reference.tagged(tag), flight, uri=uri)
        except ArtifactMissing:
            return ()
        layers = _layers(found.content, f"manifest {tag}", uri)[:_ATTACHED]
        return [
            AttachedArtifact(layer.media_type, self._content(reference, layer, flight, uri))
            for layer in layers
            if layer.media_type == OLD_SIGNATURE
        ]

    def _content(self, reference: ImageReference, layer: Descriptor, flight: Flight, uri: str) -> bytes:
        if not is_digest(layer.digest):
            raise ArtifactInvalid(uri, f"what is attached has the digest {layer.digest!r}")
        return self.client.blob(reference, layer.digest, DOCUMENT_BYTES, flight, uri=uri)


def _layers(manifest: bytes, what: str, uri: str) -> Sequence[Descriptor]:
    document = parse_document(manifest, what=what, uri=uri)
    return parse_manifest(document, what=what, uri=uri, any_type=True)[1]


def _type_of(entry: object) -> str:
    artifact_type = entry.get("artifactType") if isinstance(entry, dict) else None
    return artifact_type if isinstance(artifact_type, str) else ""
