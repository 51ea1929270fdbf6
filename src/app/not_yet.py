"""Settings that this version reads and cannot honour: refused where silence would be a false promise."""

from .option_values import SettingsError
from .settings import Settings

_NO_LOGIN = "left out: this version cannot log in to NATS with a JWT and would connect without one"
_NO_CHECK = "left out: this version checks no signatures and would install backends unverified"


def refuse_false_promises(settings: Settings) -> list[str]:
    """Warnings about settings without effect.

    Raises:
        SettingsError: for one that promises security; a worker that only seems protected must not start.
    """
    if settings.distributed_require_auth:
        right = f"{_NO_LOGIN}; --registration-require-auth alone works"
        raise SettingsError("--distributed-require-auth", "true", right)
    if settings.nats_require_auth:
        raise SettingsError("--nats-require-auth", "true", _NO_LOGIN)
    if settings.nats_jwt:
        raise SettingsError("--nats-jwt", "***", _NO_LOGIN)
    if settings.require_backend_integrity:
        raise SettingsError("--require-backend-integrity", "true", _NO_CHECK)
    unused = {
        "--prefetch-models": (settings.prefetch_models, "models come from the frontend only"),
    }
    return [
        f"{flag} has no effect in this version: {what}" for flag, (given, what) in unused.items() if given
    ]
