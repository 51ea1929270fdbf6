"""What the urls of gallery documents stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.errors import ArtifactInvalid, WorkerError
from localai_worker.domain.index_urls import document_url, hugging_face_endpoint, is_reference, referred_url

RAW = "https://raw.githubusercontent.com"
HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    ("url", "stands_for"),
    [
        ("https://h/x.yaml", "https://h/x.yaml"),
        ("http://h/x.yaml", "http://h/x.yaml"),
        ("file:///srv/backends/x.yaml", "file:///srv/backends/x.yaml"),
        (
            "github:mudler/LocalAI/backend/index.yaml@master",
            f"{RAW}/mudler/LocalAI/master/backend/index.yaml",
        ),
        ("github://mudler/LocalAI/backend/index.yaml@v2.0", f"{RAW}/mudler/LocalAI/v2.0/backend/index.yaml"),
        ("github:o/r/index.yaml", f"{RAW}/o/r/main/index.yaml"),
        ("huggingface://o/r/a/index.yaml", f"{HUB}/o/r/resolve/main/a/index.yaml"),
        ("hf://o/r/index.yaml", f"{HUB}/o/r/resolve/main/index.yaml"),
        ("hf.co/o/r/index.yaml", f"{HUB}/o/r/resolve/main/index.yaml"),
    ],
)
def test_short_forms_are_written_out(url: str, stands_for: str) -> None:
    """M-4.3.3, G-1.3.1, G-1.3.2, G-1.3.3."""
    assert document_url(url) == stands_for


@pytest.mark.parametrize("url", ["hf://o/r/index.yaml@v1", "huggingface://o/r@v1/index.yaml"])
def test_a_branch_of_hugging_face_is_one(url: str) -> None:
    """G-1.3.3, M-8.1: upstream crashes on the first and makes a wrong url of the second."""
    assert document_url(url) == f"{HUB}/o/r/resolve/v1/index.yaml"


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({}, HUB),
        (
            {"HF_MIRROR": "mirror.example", "HF": "https://b", "HF_ENDPOINT": "https://c"},
            "https://mirror.example",
        ),
        ({"HF": "b.example", "HF_ENDPOINT": "https://c"}, "https://b.example"),
        ({"HF_ENDPOINT": "http://127.0.0.1:8000/"}, "http://127.0.0.1:8000"),
        ({"HF_MIRROR": "", "HF_ENDPOINT": "https://c"}, "https://c"),
    ],
)
def test_a_mirror_of_hugging_face_goes_before_it(environment: dict[str, str], endpoint: str) -> None:
    """G-1.3.3."""
    assert hugging_face_endpoint(environment) == endpoint
    assert document_url("hf://o/r/x", hugging_face=endpoint) == f"{endpoint}/o/r/resolve/main/x"
    assert (
        document_url(f"{HUB}/o/r/resolve/main/x", hugging_face=endpoint) == f"{endpoint}/o/r/resolve/main/x"
    )


@pytest.mark.parametrize(
    "url", ["github:o/r", "github:", "github://o//x", "huggingface://o/r", "hf://o/r@v1"]
)
def test_a_short_form_with_parts_missing_is_an_error_and_no_crash(url: str) -> None:
    """M-8.1: upstream's worker ends on some of these at boot."""
    with pytest.raises(WorkerError, match=r"write .*<owner>/<repository>/<path>"):
        document_url(url)


@pytest.mark.parametrize(
    "url", ["", "/srv/index.yaml", "oci://quay.io/x", "ollama://x", "index.yaml", "ftp://h/x"]
)
def test_other_kinds_are_refused_with_those_that_are_read(url: str) -> None:
    """G-1.3.1: a bare path, images and Ollama are no indexes."""
    with pytest.raises(
        WorkerError, match=r"supported: https://, http://, file://, github:, huggingface://, hf://"
    ):
        document_url(url)


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_a_foreseen_error(text: str) -> None:
    for prefix in ("", "github:", "hf://", "https://huggingface.co/"):
        try:
            assert document_url(prefix + text).startswith(("http://", "https://", "file://"))
        except WorkerError:
            continue


def test_a_reference_names_a_file_beside_it() -> None:
    """G-1.3.5: the text of a `.ref` is appended to the directory it lies in; white space around it is cut."""
    assert is_reference("https://h/a/latest.ref")
    assert is_reference("github:o/r/latest.ref")
    assert not is_reference("github:o/r/latest.ref@main")
    assert referred_url("https://h/a/latest.ref", b" v2/index.yaml\n") == "https://h/a/v2/index.yaml"
    assert referred_url("file:///srv/b/latest.ref", b"index.yaml") == "file:///srv/b/index.yaml"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xff", "no text"),
        (b"a\nb", "more than one line"),
        (b"a" * 5000, "more than one line"),
        (b"../other/index.yaml", "leads away"),
        (b"a/../../x", "leads away"),
        (b"/etc/passwd", "leads away"),
        (b"//evil.example/x", "leads away"),
        (b"https://evil.example/x", "leads away"),
        (b"x?y", "leads away"),
        (b"other.ref", "another reference"),
    ],
)
def test_a_reference_that_leads_elsewhere_is_refused(content: bytes, why: str) -> None:
    """G-W33, G-1.3.5."""
    with pytest.raises(ArtifactInvalid, match=why):
        referred_url("https://h/a/latest.ref", content)
