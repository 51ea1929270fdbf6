"""Labels, and the VRAM budget: what the node says about itself besides its hardware."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.node import label_warnings, parse_labels
from localai_worker.domain.vram_budget import WrongVramBudget, parse_vram_budget

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("", {}),
        ("a=b", {"a": "b"}),
        (" zone = eu , disk= ssd ", {"zone": "eu", "disk": "ssd"}),
        ("k=v=w", {"k": "v=w"}),
        ("k=", {"k": ""}),
        ("=v", {"": "v"}),
        ("k=1,k=2", {"k": "2"}),
        ("plain,k=v,,", {"k": "v"}),
    ],
)
def test_labels_split_at_commas_and_the_first_equals_sign(text: str, labels: dict[str, str]) -> None:
    assert parse_labels(text) == labels


@given(st.text())
def test_labels_are_trimmed_and_hold_no_comma(text: str) -> None:
    for key, value in parse_labels(text).items():
        assert (key, value) == (key.strip(), value.strip())
        assert "," not in key + value
        assert "=" not in key


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("gpu", '"gpu" has no "="'),
        ("=v", "empty key"),
        ("k" * 129 + "=v", "longer than 128"),
        ("k=" + "v" * 256, "longer than 255"),
    ],
)
def test_a_label_that_will_not_arrive_is_warned_about(text: str, warning: str) -> None:
    (said,) = label_warnings(text)
    assert warning in said


def test_good_labels_give_no_warning() -> None:
    assert label_warnings("a=b, c=d," + "k" * 128 + "=" + "v" * 255) == ()


@pytest.mark.parametrize(
    ("text", "ceiling"),
    [
        ("", 24 * GIB),
        ("  ", 24 * GIB),
        ("0", 24 * GIB),
        ("0%", 24 * GIB),
        ("0GB", 24 * GIB),
        ("80%", 24 * GIB * 8 // 10),
        ("0.5", 12 * GIB),
        (".5", 12 * GIB),
        ("1", 24 * GIB),
        ("100%", 24 * GIB),
        ("12GB", 12 * 10**9),
        ("12gb", 12 * 10**9),
        ("12GiB", 12 * GIB),
        ("1.5GB", 15 * 10**8),
        ("512 MiB", 512 * 1024**2),
        ("1000000", 1_000_000),
        ("100B", 100),
        ("1TiB", 24 * GIB),
    ],
)
def test_a_budget_is_a_share_or_a_size(text: str, ceiling: int) -> None:
    assert parse_vram_budget(text).ceiling_bytes(24 * GIB) == ceiling


@pytest.mark.parametrize(
    "text", ["101%", "-1", "-12GB", "1.5", "12XB", "12iB", "GB", "%", "1e9", "lots", "9" * 5000]
)
def test_a_text_that_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(WrongVramBudget, match="a share like 80%"):
        parse_vram_budget(text)


@given(st.text(alphabet="0123456789.%kKmMgGtTiIbB -"), st.integers(0, 2**50))
def test_a_budget_never_allows_more_than_there_is(text: str, total_bytes: int) -> None:
    try:
        budget = parse_vram_budget(text)
    except WrongVramBudget:
        return
    assert 0 <= budget.ceiling_bytes(total_bytes) <= total_bytes
