"""Signatures that nobody here can verify are told about, not passed over in silence."""

import pytest

from localai_worker.app.signature_warnings import can_verify, signature_warnings
from localai_worker.app.testing import memory_settings

SIGNED = '[{"name":"site","url":"https://h/x","verification":{"issuer":"i","identity":"x"}}]'


@pytest.mark.parametrize(
    ("variables", "who"),
    [
        ({"LOCALAI_BACKEND_GALLERIES": SIGNED}, "galleries site want signatures"),
        ({"LOCALAI_REQUIRE_BACKEND_INTEGRITY": "true"}, "--require-backend-integrity wants signatures"),
    ],
)
def test_signatures_that_nothing_can_verify_are_warned_about(variables: dict[str, str], who: str) -> None:
    settings = memory_settings(**variables)
    (warning,) = signature_warnings(settings, can_verify=False)
    assert warning.startswith(who)
    assert "localai-worker[verify]" in warning
    assert signature_warnings(settings, can_verify=True) == []


def test_an_ordinary_worker_hears_nothing() -> None:
    assert signature_warnings(memory_settings(), can_verify=False) == []


def test_the_library_is_found_where_it_is_installed() -> None:
    assert can_verify()
