"""The PEM files of LOCALAI_NATS_TLS_CA, _CERT and _KEY."""

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The authority to trust instead of the system's, and our certificate with its key (both or none)."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """What to speak TLS with; servers are always verified.

        Raises:
            ValueError: a file is missing, unreadable or no PEM, or certificate and key are no pair.
        """
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a TLS certificate needs its key, and a key its certificate")
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError, for text that is no PEM, is one too
            named = ", ".join(str(path) for path in (self.ca, self.certificate, self.key) if path)
            raise ValueError(f"cannot use the TLS files {named}: {error}") from error
        return context
