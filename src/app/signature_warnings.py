"""Signatures that are wanted where nothing can verify them: silence would be a false promise."""

from importlib.util import find_spec

from .settings import Settings


def can_verify() -> bool:
    """Whether the library that verifies signatures is installed; it is not loaded for this."""
    return find_spec("sigstore") is not None


def signature_warnings(settings: Settings, *, can_verify: bool) -> list[str]:
    """A warning for each."""
    policies = [each.name for each in settings.backend_galleries if each.verification is not None]
    if can_verify or not (policies or settings.require_backend_integrity):
        return []
    wants = f"galleries {', '.join(policies)} want" if policies else "--require-backend-integrity wants"
    remedy = "images will be refused; install localai-worker[verify]"
    return [f"{wants} signatures, and nothing here can verify them: {remedy}"]
