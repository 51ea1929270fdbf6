"""NATS credentials: what they tell of themselves, and what cannot be any."""

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.app.simulator.nats_users import NatsUsers
from localai_worker.domain.bus_credentials import BusCredentials, WrongCredentials

USERS = NatsUsers(now_s=lambda: 1_800_000_000.0)
GOOD = USERS.mint("worker")


def jwt(claims: object) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{middle}.signature"


def test_a_minted_pair_tells_its_times() -> None:
    credentials = USERS.mint("worker", lifetime_s=3600)
    issued_at = datetime.fromtimestamp(1_800_000_000, UTC)
    assert credentials.issued_at == issued_at
    assert credentials.expires_at is not None
    assert (credentials.expires_at - issued_at).total_seconds() == 3600


@pytest.mark.parametrize("claims", [{}, {"exp": 0}, {"exp": None, "iat": None}])
def test_a_jwt_without_an_expiry_is_good_for_ever(claims: dict[str, object]) -> None:
    assert BusCredentials.parse(jwt(claims), GOOD.seed).expires_at is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c.d",
        "a.b!.c",
        "a.bnVsbA.c",
        jwt([]),
        jwt({"exp": "soon"}),
        jwt({"exp": True}),
        jwt({"exp": 1e300}),
        jwt({"iat": -1e30}),
        "a." + base64.urlsafe_b64encode(b"[" * 50_000).decode().rstrip("=") + ".c",
        "\udc80.\udc80.\udc80",
    ],
)
def test_what_is_no_jwt_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(WrongCredentials, match="the NATS user JWT must be") as caught:
        BusCredentials.parse(text, GOOD.seed)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize(
    "seed",
    ["", "SU", GOOD.seed.lower(), GOOD.seed[:-1], f" {GOOD.seed}", f"SA{GOOD.seed[2:]}", GOOD.seed + "A"],
    ids=["empty", "prefix only", "lower case", "too short", "blank before", "of an account", "too long"],
)
def test_what_is_no_user_seed_is_refused(seed: str) -> None:
    with pytest.raises(WrongCredentials, match="begin with SU"):
        BusCredentials.parse(GOOD.jwt, seed)


def test_a_seed_with_a_wrong_letter_is_found_by_its_checksum() -> None:
    wrong = GOOD.seed[:20] + ("A" if GOOD.seed[20] != "A" else "B") + GOOD.seed[21:]
    with pytest.raises(WrongCredentials, match="checksum") as caught:
        BusCredentials.parse(GOOD.jwt, wrong)
    assert wrong not in str(caught.value)


@given(st.text(), st.text())
def test_any_other_text_is_an_error_and_no_crash(jwt: str, seed: str) -> None:
    with pytest.raises(WrongCredentials):
        BusCredentials.parse(jwt, seed)


def test_neither_part_shows_in_a_repr() -> None:
    assert GOOD.jwt not in repr(GOOD)
    assert GOOD.seed not in repr(GOOD)
