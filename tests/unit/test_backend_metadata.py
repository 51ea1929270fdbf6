"""metadata.json, byte for byte as upstream writes it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.backend_metadata import BackendMetadata, installation_time
from localai_worker.domain.errors import MalformedMessage

GOLDEN = Path(__file__).parents[1] / "golden/backends"
GOLDEN_FILES = ["metadata-concrete.json", "metadata-meta.json", "metadata-external.json"]


@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_golden_metadata_is_written_back_byte_for_byte(name: str) -> None:
    """G-2.2.7, G-2.2.8, G-2.2.9, G-2.2.10, G-2.2.11, G-2.2.12, G-2.2.13, G-2.2.14, G-2.2.15, G-2.2.16."""
    content = (GOLDEN / name).read_bytes()
    assert BackendMetadata.from_json(content).to_json() == content


def test_golden_metadata_is_read_into_its_fields() -> None:
    meta = BackendMetadata.from_json((GOLDEN / "metadata-meta.json").read_bytes())
    assert meta == BackendMetadata(
        meta_backend_for="cuda12-demo-engine",
        name="demo-engine",
        gallery_url="https://example.invalid/index.yaml",
        installed_at="2026-04-20T10:15:31+02:00",
        version="1.10",
    )


def test_text_is_escaped_as_go_escapes_it() -> None:
    written = BackendMetadata(name="<a&b>", version='"\\/\u2028é\x01\n').to_json().decode()
    assert written == (
        '{\n  "name": "\\u003ca\\u0026b\\u003e",\n  "version": "\\"\\\\/\\u2028é\\u0001\\n"\n}'
    )


def test_nothing_known_is_an_empty_object() -> None:
    assert BackendMetadata().to_json() == b"{}"


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.builds(BackendMetadata, alias=texts, name=texts, uri=texts, version=texts))
def test_what_is_written_is_read_back(metadata: BackendMetadata) -> None:
    assert BackendMetadata.from_json(metadata.to_json()) == metadata


def test_half_characters_are_written_as_what_they_are_read_back_as() -> None:
    metadata = BackendMetadata(version="1\udce9")
    assert BackendMetadata.from_json(metadata.to_json()) == replace(metadata, version="1\ufffd")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"name": 1}', b'{"alias": []}', b"{} {}"])
def test_broken_metadata_is_told(content: bytes) -> None:
    with pytest.raises(MalformedMessage):
        BackendMetadata.from_json(content)


def test_keys_in_any_letter_case_null_and_unknown_keys_are_read_as_go_does() -> None:
    content = b'{"NAME": "x", "Alias": null, "size": 5}'
    assert BackendMetadata.from_json(content) == BackendMetadata(name="x")


@pytest.mark.parametrize(
    ("offset_h", "written"),
    [(2.0, "2026-04-20T10:15:30+02:00"), (0.0, "2026-04-20T10:15:30Z"), (-3.5, "2026-04-20T10:15:30-03:30")],
)
def test_installation_time_has_seconds_and_the_local_offset(offset_h: float, written: str) -> None:
    """G-2.2.13."""
    zone = timezone(timedelta(hours=offset_h)) if offset_h else UTC
    assert installation_time(datetime(2026, 4, 20, 10, 15, 30, 987_654, tzinfo=zone)) == written
