"""Signatures in memory: a bundle is JSON that says who signed what and when, and is believed."""

import json
from dataclasses import dataclass
from datetime import datetime

from anyio.lowlevel import checkpoint

from ...domain.errors import SignatureInvalid, VerifierUnavailable
from ...domain.ports.signatures import Signer


@dataclass
class InMemorySignatures:
    """A `SignatureVerifier` of the bundles that `bundle` makes."""

    offline: bool = False

    async def verify(self, bundle: bytes, digest: str) -> Signer:
        await checkpoint()
        if self.offline:
            raise VerifierUnavailable("the in-memory verifier is set offline")
        try:
            told = json.loads(bundle)
            signer = Signer(
                told["issuer"], tuple(told["identities"]), datetime.fromisoformat(told["issued_at"])
            )
            signed = told["digest"]
        except (ValueError, TypeError, KeyError) as error:
            raise SignatureInvalid(f"it is no bundle: {error}") from error
        if signed != digest:
            raise SignatureInvalid(f"it is of {signed}, not of {digest}")
        return signer

    @staticmethod
    def bundle(digest: str, signer: Signer) -> bytes:
        """A signature of `digest` by `signer`."""
        return json.dumps(
            {
                "digest": digest,
                "issuer": signer.issuer,
                "identities": signer.identities,
                "issued_at": signer.issued_at.isoformat(),
            }
        ).encode()
