"""Settings this version cannot honour are told, not passed over in silence."""

from localai_worker.app.not_yet import without_effect
from tests.memory_worker import memory_settings


def test_what_is_without_effect_is_warned_about() -> None:
    settings = memory_settings(
        LOCALAI_PREFETCH_MODELS="qwen",
    )
    (prefetch,) = without_effect(settings)
    assert prefetch.startswith("--prefetch-models has no effect in this version: ")


def test_an_ordinary_worker_hears_nothing() -> None:
    assert without_effect(memory_settings()) == []
