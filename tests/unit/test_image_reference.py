"""What reads as an image, and as which."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.image_reference import ImageReference, MalformedReference, names_image

HEX = "0123456789abcdef" * 4
CASES = json.loads((Path(__file__).parents[1] / "golden/backends/install-plan-cases.json").read_text())


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("quay.io/go-skynet/b:latest-cpu", ImageReference("quay.io", "go-skynet/b", "latest-cpu")),
        ("oci://quay.io/b", ImageReference("quay.io", "b")),
        ("localai/localai-backends:t", ImageReference("docker.io", "localai/localai-backends", "t")),
        ("oci://alpine", ImageReference("docker.io", "library/alpine")),
        ("docker.io/alpine:3", ImageReference("docker.io", "library/alpine", "3")),
        ("index.docker.io/a/b", ImageReference("docker.io", "a/b")),
        ("oci://localhost/b:1", ImageReference("localhost", "b", "1")),
        ("oci://reg.invalid:5000/a/b/c:1", ImageReference("reg.invalid:5000", "a/b/c", "1")),
        ("oci://reg.invalid:5000/b", ImageReference("reg.invalid:5000", "b")),
        ("oci://[::1]:5000/b:1", ImageReference("[::1]:5000", "b", "1")),
        (f"ghcr.io/b@sha256:{HEX}", ImageReference("ghcr.io", "b", digest=f"sha256:{HEX}")),
        (f"ghcr.io/b:t@sha256:{HEX}", ImageReference("ghcr.io", "b", "t", f"sha256:{HEX}")),
    ],
)
def test_a_reference_is_read_as_docker_reads_it(uri: str, expected: ImageReference) -> None:
    """G-2.6.1."""
    reference = ImageReference.parse(uri)
    assert reference == expected
    assert ImageReference.parse(str(reference)).version == reference.version


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("oci://", "no name of a repository"),
        ("oci://Quay/Upper", "lower-case"),
        ("oci://quay.io/b:", "no tag"),
        ("oci://quay.io/b:a b", "no tag"),
        (f"oci://quay.io/b:{'t' * 129}", "no tag"),
        ("oci://quay.io/b@sha256:12", "no digest"),
        ("oci://quay.io/b@md5:" + "0" * 32, "no digest"),
        ("oci://quay.io/../etc", "no name of a repository"),
        ("oci://user:secret@quay.io/b", "no digest"),
        ("oci://-bad-.io:1/b", "no host"),
        (f"oci://quay.io/{'a' * 256}", "no name of a repository"),
    ],
)
def test_what_is_none_is_refused_with_the_form(uri: str, reason: str) -> None:
    with pytest.raises(MalformedReference) as caught:
        ImageReference.parse(uri)
    assert reason in str(caught.value)
    assert "write [oci://]host/name[:tag]" in str(caught.value)


@pytest.mark.parametrize("case", [each for each in CASES if not each.get("external")], ids=lambda c: c["uri"])
def test_golden_payloads_are_images_even_where_upstream_takes_them_for_urls(case: dict[str, Any]) -> None:
    """G-2.5.1, G-1.2.16, G-W1: the mirrors on Docker Hub are images."""
    assert names_image(case["uri"])


@pytest.mark.parametrize(
    ("uri", "is_image"),
    [
        ("localai/localai-backends:latest-cpu-x", True),
        ("docker.io/localai/b", True),
        ("quay.io/b", True),
        ("oci://anything", True),
        (f"a/b@sha256:{HEX}", True),
        ("host:5000/b", True),
        ("a/b", False),
        ("alpine:3", False),
        ("llama-cpp", False),
        ("site@llama-cpp", False),
        ("https://h/x.tar.gz", False),
        ("ocifile:///x.tar", False),
        ("file:///x", False),
        ("/srv/tree", False),
        ("", False),
    ],
)
def test_what_counts_as_an_image(uri: str, is_image: bool) -> None:
    """G-2.5.1, G-W1."""
    assert names_image(uri) is is_image


@given(st.text())
def test_any_text_is_a_reference_or_a_refusal(text: str) -> None:
    try:
        reference = ImageReference.parse(text)
    except MalformedReference:
        return
    assert ".." not in reference.repository.split("/")
    assert not set("?#% \\@") & set(reference.host + reference.repository + reference.tag)
