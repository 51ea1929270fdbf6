"""Signatures of images: who signed, if the signature is good."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed, as a certificate authority that we trust has attested.

    `issuer` is who vouched for the identity (an OIDC issuer's url), `identities` are the certificate's
    subject names, and it was issued at `issued_at` (aware), minutes before the signature at most.
    """

    issuer: str
    identities: tuple[str, ...]
    issued_at: datetime


class SignatureVerifier(Protocol):
    """Verifies Sigstore bundles, of keyless signatures."""

    async def verify(self, bundle: bytes, digest: str) -> Signer:
        """Who signed the artifact with the hash `digest` (`sha256:<hex>`) in `bundle` (JSON).

        That its certificate chains to a trusted authority and is in a certificate log, that the
        signature is in a transparency log, was made while the certificate was valid, and is of that
        digest, is verified; whether the signer is the one who should have signed is not.

        Raises:
            SignatureInvalid: any of it is not so.
            VerifierUnavailable: nothing can be verified right now: no library, or no trust root.
        """
