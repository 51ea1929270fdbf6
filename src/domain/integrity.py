"""Whether a payload may be installed: signatures of images, hashes of everything else."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from .errors import (
    ArtifactInvalid,
    ArtifactUnavailable,
    SignatureInvalid,
    UnsupportedSource,
    VerifierUnavailable,
    WorkerError,
)
from .galleries import Gallery
from .image_reference import names_image
from .messages.error_text import go_quote
from .ports.artifacts import OLD_SIGNATURE, Approve, ImageAttachments, approve_any
from .ports.signatures import SignatureVerifier
from .signature_policy import SignaturePolicy

log = logging.getLogger(__name__)

# Source: LocalAI pkg/oci/cosignverify; artifact types are this, a version, and `+json`.
_BUNDLE = "application/vnd.dev.sigstore.bundle."
_ONLY_OLD = (
    "one in cosign's old form (tag .sig) is not read: `cosign sign --new-bundle-format` makes a bundle"
)
_IMAGE_FILE = "ocifile://"
_OTHER_IMAGES = ("ollama://",)


@dataclass(frozen=True, slots=True)
class Payload:
    """What is to be installed as `name`, and what is known of it: its `sources` in order, the hash of one
    that is no image, and the gallery that lists it (None: a request named the source itself).
    """

    name: str
    sources: Sequence[str]
    sha256: str = ""
    gallery: Gallery | None = None


@dataclass(eq=False)
class IntegrityRequired(WorkerError):
    """A payload that nothing vouches for, on a node that takes none of these."""

    problem: str

    def __str__(self) -> str:
        return f"strict integrity: {self.problem} (LOCALAI_REQUIRE_BACKEND_INTEGRITY)"


@dataclass(eq=False)
class ImageNotVerified(WorkerError):
    """An image that is not signed by whom its gallery wants."""

    uri: str
    cause: WorkerError

    def __str__(self) -> str:
        return f"image verification failed for {go_quote(self.uri)}: {self.cause}"


@dataclass
class Integrity:
    """Decides what may be installed.

    Images of a gallery with a policy (`verification`) must be signed as it says. Where the gallery has
    none, images are taken, and with `required` refused; with it everything else needs a hash.
    Directories of this node are always taken.
    Source: LocalAI core/gallery/backends.go (the strict gate), pkg/oci/cosignverify.
    """

    attachments: ImageAttachments
    signatures: SignatureVerifier
    required: bool = False

    def admit(self, payload: Payload, uri: str) -> Approve:
        """What a fetch of `payload` from `uri` must ask before it writes an image.

        Raises:
            IntegrityRequired: nothing vouches for it.
            InvalidPolicy: its gallery's policy cannot be used.
        """
        if uri.startswith("/"):
            return approve_any
        if not _is_image(uri):
            if self.required and not payload.sha256:
                raise IntegrityRequired(
                    f"backend {go_quote(payload.name)} has no SHA256 ({_origin(payload.gallery)})"
                )
            return approve_any
        if payload.gallery is None or payload.gallery.verification is None:
            if self.required:
                raise IntegrityRequired(
                    f"{_origin(payload.gallery)} has no verification policy for OCI backend "
                    f"{go_quote(payload.name)}; give the gallery one"
                )
            return partial(_unverified, payload.name, uri)
        policy = SignaturePolicy.from_gallery(payload.gallery.name, payload.gallery.verification)

        async def approve(digest: str) -> None:
            try:
                await self._verify(uri, digest, policy)
            except _NOT_VERIFIED as error:
                raise ImageNotVerified(uri, error) from error

        return approve

    async def _verify(self, uri: str, digest: str, policy: SignaturePolicy) -> None:
        """Find a signature of the manifest `digest` that holds and is by whom the policy wants (G-W28)."""
        attached = await self.attachments.attached(uri, digest, artifact_type=_BUNDLE)
        bundles = [each.content for each in attached if each.artifact_type.endswith("+json")]
        objections: list[str] = []
        for bundle in bundles:
            try:
                signer = await self.signatures.verify(bundle, digest)
            except SignatureInvalid as error:
                objections.append(error.reason)
                continue
            if not (objection := policy.objection(signer)):
                log.info("image verified: source=%s digest=%s signer=%s", uri, digest, signer.identities[0])
                return
            objections.append(objection)
        if not objections:
            objections.append(f"there is none for {digest}")
            if await self.attachments.attached(uri, digest, artifact_type=OLD_SIGNATURE):
                objections.append(_ONLY_OLD)
        raise SignatureInvalid("; ".join(objections))


_NOT_VERIFIED = (
    ArtifactUnavailable,
    ArtifactInvalid,
    UnsupportedSource,
    SignatureInvalid,
    VerifierUnavailable,
)


async def _unverified(name: str, uri: str, digest: str) -> None:
    log.warning("image is not verified: backend=%s source=%s digest=%s", name, uri, digest)


def _is_image(uri: str) -> bool:
    return uri.startswith((_IMAGE_FILE, *_OTHER_IMAGES)) or names_image(uri)


def _origin(gallery: Gallery | None) -> str:
    return f"gallery {go_quote(gallery.name)}" if gallery else "a source without a gallery"
