"""What integrity is made of, each adapter imported only when it is built."""

from pathlib import Path
from typing import Any


def attachments() -> Any:
    """Finds signatures in registries."""
    from ..adapters.memory.artifacts import InMemoryAttachments

    return InMemoryAttachments()


def signatures(trusted_root: Path | None) -> Any:
    """Verifies them; the library is loaded with the first one."""
    from ..adapters.signatures.sigstore_bundles import SigstoreBundles

    return SigstoreBundles(trusted_root)
