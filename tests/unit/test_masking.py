"""Passwords never reach a reader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.masking import mask_url, mask_url_value, one_line


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("nats://nats:4222", "nats://nats:4222"),
        ("nats://user:secret@nats:4222", "nats://user:***@nats:4222"),
        ("nats://token@nats:4222", "nats://***@nats:4222"),
        ("nats://:secret@nats:4222", "nats://***@nats:4222"),
        ("nats://u:pa@ss@nats:4222", "nats://u:***@nats:4222"),
        ("nats://a:b@h1:1,nats://c:d@h2:2", "nats://a:***@h1:1,nats://c:***@h2:2"),
        ('cannot reach "https://u:p@h/x" (3 tries)', 'cannot reach "https://u:***@h/x" (3 tries)'),
        ("oci://quay.io/org/name@sha256:0123", "oci://quay.io/org/name@sha256:0123"),
        (
            "github:mudler/LocalAI/backend/index.yaml@master",
            "github:mudler/LocalAI/backend/index.yaml@master",
        ),
        ("mail me@example.org about http://h/", "mail me@example.org about http://h/"),
    ],
)
def test_urls_in_running_text_lose_their_password(text: str, masked: str) -> None:
    assert mask_url(text) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("nats://nats:4222", "nats://nats:4222"),
        ("user:secret@nats:4222", "***@nats:4222"),
        ("nats://user:se/cr,et@nats:4222", "nats://***@nats:4222"),
        ("nats://user:se#cr?et@nats:4222", "nats://***@nats:4222"),
        ("tls://a:b@h1,tls://c:d@h2", "tls://***@h1,tls://***@h2"),
    ],
)
def test_a_value_that_should_be_a_url_is_masked_even_where_it_is_malformed(text: str, masked: str) -> None:
    assert mask_url_value(text) == masked


@given(password=st.text(min_size=8).filter(lambda text: "://" not in text and "@" not in text))
def test_no_password_survives_in_a_url_value(password: str) -> None:
    assert password not in mask_url_value(f"nats://user:{password}@nats:4222")


@given(st.text())
def test_one_line_is_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert len(one_line(text, limit=20)) <= 20


def test_control_characters_are_written_as_escapes() -> None:
    assert one_line("a\nb\x1b[31m\udc80é") == "a\\nb\\x1b[31m\\udc80é"
