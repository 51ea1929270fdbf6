"""Settings that this version reads and that have no effect: silence would be a false promise."""

from .settings import Settings


def without_effect(settings: Settings) -> list[str]:
    """A warning for each."""
    unused = {
        "--prefetch-models": (settings.prefetch_models, "models come from the frontend only"),
    }
    return [
        f"{flag} has no effect in this version: {what}" for flag, (given, what) in unused.items() if given
    ]
