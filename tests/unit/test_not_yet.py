"""Settings this version cannot honour: no false sense of security."""

import pytest

from localai_worker.app.not_yet import refuse_false_promises
from localai_worker.app.option_values import SettingsError
from tests.memory_worker import memory_settings


@pytest.mark.parametrize(
    "variables",
    [
        {"LOCALAI_DISTRIBUTED_REQUIRE_AUTH": "true"},
        {"LOCALAI_NATS_REQUIRE_AUTH": "true"},
        {"LOCALAI_NATS_JWT": "eyJ", "LOCALAI_NATS_USER_SEED": "SUAB"},
        {"LOCALAI_REQUIRE_BACKEND_INTEGRITY": "true"},
    ],
)
def test_what_promises_security_and_cannot_keep_it_is_refused(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="must be left out: this version") as caught:
        refuse_false_promises(memory_settings(**variables))
    assert "eyJ" not in str(caught.value)


def test_what_is_only_without_effect_is_warned_about() -> None:
    settings = memory_settings(
        LOCALAI_PREFETCH_MODELS="qwen",
    )
    (prefetch,) = refuse_false_promises(settings)
    assert prefetch.startswith("--prefetch-models has no effect in this version: ")


def test_an_ordinary_worker_hears_nothing() -> None:
    assert refuse_false_promises(memory_settings()) == []
