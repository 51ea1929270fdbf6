"""Which files of a repository a pattern means."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.hub_patterns import BadPattern, check_pattern, matches


@pytest.mark.parametrize(
    ("pattern", "path", "meant"),
    [
        ("config.json", "config.json", True),
        ("config.json", "unet/config.json", True),
        ("config.json", "config.json.bak", False),
        ("*.json", "config.json", True),
        ("*.json", "a/b/config.json", True),
        ("*.json", "configXjson", False),
        ("unet/*", "unet/config.json", True),
        ("unet/*", "unet/deep/config.json", False),
        ("unet/*", "vae/unet/config.json", False),
        ("*", "a/b", True),
        ("*/*", "a/b", True),
        ("*/*", "b", False),
        ("?.bin", "a.bin", True),
        ("?.bin", "ab.bin", False),
        ("a?b", "a/b", False),
        ("model-[0-3].bin", "model-2.bin", True),
        ("model-[0-3].bin", "model-4.bin", False),
        ("model-[^0-3].bin", "model-4.bin", True),
        ("[abc]x", "bx", True),
        ("[a^]x", "^x", True),
        ("[9-0]x", "5x", False),
        ("[^9-0]x", "5x", True),
        ("x.y+z", "x.y+z", True),
        ("x.y", "xzy", False),
        ("Ä*", "Ärger", True),
        ("*.JSON", "a.json", False),
    ],
)
def test_what_a_pattern_means(pattern: str, path: str, meant: bool) -> None:
    """M-5.2: as Go's path.Match, and without a slash any directory's files."""
    check_pattern(pattern)
    assert matches(path, [pattern]) is meant


@pytest.mark.parametrize(
    "pattern",
    ["", "/x", "a\\b", "a\0", "../x", "a/../b", "..", "[", "[]", "[]a]", "[-a]", "[a-]", "[^]", "a["],
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(BadPattern):
        check_pattern(pattern)


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_pattern_or_is_told(pattern: str, path: str) -> None:
    with suppress(BadPattern):
        check_pattern(pattern)
        assert matches(path, [pattern]) in {True, False}


def test_one_of_several_is_enough_and_none_means_nothing() -> None:
    assert matches("a.bin", ["*.json", "*.bin"])
    assert not matches("a.bin", [])
