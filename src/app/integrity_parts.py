"""What integrity is made of, each adapter imported only when it is built."""

from pathlib import Path
from typing import Any


def signatures(trusted_root: Path | None) -> Any:
    """Verifies them; the library is loaded with the first one."""
    from ..adapters.signatures.sigstore_bundles import SigstoreBundles

    return SigstoreBundles(trusted_root)
