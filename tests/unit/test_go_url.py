"""Keys in URLs as Go puts them there; the expected targets were answered by Go 1.26's net/url."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.app.simulator.go_url import UnsendableKey, go_request_target

PREFIX = "/v1/files/"


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("models/qwen/q.gguf", "models/qwen/q.gguf"),
        ("a b", "a%20b"),
        ("a%20b", "a%20b"),
        ("a%2Fb", "a%2Fb"),
        ("a%2Fb c", "a/b%20c"),
        ("a b(1)[x].gguf", "a%20b%281%29%5Bx%5D.gguf"),
        ("a(1)[x].gguf", "a(1)[x].gguf"),
        ("what?.gguf", "what?.gguf"),
        ("a?b c", "a?b c"),
        ("a?", "a?"),
        ("a?%zz", "a?%zz"),
        ("a#b", "a"),
        ("a#\tb", "a"),
        ("über.gguf", "%C3%BCber.gguf"),
        ("a%C3%A9", "a%C3%A9"),
        ("a%C3%A9 ", "a%C3%A9%20"),
        ("x'!*;,&=+$@:~-_.", "x'!*;,&=+$@:~-_."),
        ('a"b<c>^`{|}\\', "a%22b%3Cc%3E%5E%60%7B%7C%7D%5C"),
        ("../up", "../up"),
        ("a//b", "a//b"),
        ("./a", "./a"),
        ("", ""),
    ],
)
def test_a_key_goes_into_the_request_line_as_go_puts_it_there(key: str, target: str) -> None:
    """S-K20"""
    assert go_request_target(PREFIX, key) == (PREFIX + target).encode()


@pytest.mark.parametrize("key", ["100%", "a%zz", "a b#c%zz", "a#%zz", "tab\there", "a?\x7f"])
def test_a_key_of_which_go_makes_no_url_is_refused(key: str) -> None:
    with pytest.raises(UnsendableKey) as caught:
        go_request_target(PREFIX, key)
    assert repr(key) in str(caught.value)


@given(st.text())
def test_the_path_of_a_target_is_printable_ascii_without_spaces(key: str) -> None:
    try:
        path = go_request_target(PREFIX, key).partition(b"?")[0]
    except UnsendableKey:
        return
    assert all(0x20 < byte < 0x7F for byte in path)


@given(st.text(alphabet=st.characters(blacklist_characters="%#?", blacklist_categories=["Cc", "Cs"])))
def test_a_key_without_marks_arrives_as_it_was(key: str) -> None:
    from urllib.parse import unquote

    assert unquote(go_request_target("", key).decode()) == key
