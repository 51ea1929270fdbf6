"""Gallery lists, as flags, variables and install requests carry them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.galleries import Gallery, GalleryListUnreadable, parse_galleries

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/backends/galleries-env.json").read_text())


def test_the_seed_form_has_names_and_urls() -> None:
    """G-1.1.4."""
    assert parse_galleries(GOLDEN["seed"]) == (
        Gallery("localai", "github:mudler/LocalAI/backend/index.yaml@master"),
        Gallery("site", "https://example.invalid/index.yaml"),
    )


def test_the_newer_form_adds_mirrors_and_a_signature_policy() -> None:
    """G-1.1.8, G-1.1.9."""
    (gallery,) = parse_galleries(GOLDEN["newer"])
    assert gallery.mirrors == ("https://mirror.example.invalid/index.yaml",)
    assert gallery.verification is not None
    assert gallery.verification["issuer"] == "https://token.actions.githubusercontent.com"
    assert hash(gallery) == hash(parse_galleries(GOLDEN["newer"])[0])


@pytest.mark.parametrize("text", ["null", "[]", "  []\n"])
def test_null_and_the_empty_list_are_no_galleries(text: str) -> None:
    """G-1.1.6."""
    assert parse_galleries(text) == ()


def test_keys_match_in_any_case_and_unknown_ones_are_ignored() -> None:
    """G-1.1.4."""
    text = '[{"NAME":"a","Url":"https://a","Mirrors":["https://b"],"colour":"red","verification":null}]'
    assert parse_galleries(text) == (Gallery("a", "https://a", ("https://b",)),)


def test_null_is_the_zero_value_everywhere() -> None:
    text = '[null, {"name":null,"url":"u","mirrors":null}, {"mirrors":[null]}]'
    assert parse_galleries(text) == (Gallery("", ""), Gallery("", "u"), Gallery("", "", ("",)))


def test_half_a_surrogate_pair_becomes_a_character_that_can_be_written() -> None:
    (gallery,) = parse_galleries('[{"name":"x\\ud800"}]')
    assert gallery.name == "x\ufffd"


def test_an_empty_signature_policy_is_not_the_same_as_none() -> None:
    empty, none = parse_galleries('[{"verification":{}},{"verification":null}]')
    assert empty.verification == {}
    assert none.verification is None


def test_a_signature_policy_is_kept_as_written_with_keys_in_lower_case() -> None:
    text = '[{"verification":{"Issuer":"https://i","depth":1.50,"more":[null,true,{"A":"b"}]}}]'
    (gallery,) = parse_galleries(text)
    assert gallery.verification == {"issuer": "https://i", "depth": "1.50", "more": [None, True, {"a": "b"}]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "unexpected end of JSON input"),
        ("[", "Expecting"),
        ("[] x", "Extra data"),
        ("{}", "want a JSON array, got an object"),
        ('"[]"', "got a string"),
        ("7", "got the number 7"),
        ("NaN", "NaN is not a JSON value"),
        ("[1]", "element 0: want an object, got the number 1"),
        ('[{}, ["u"]]', "element 1: want an object, got a list"),
        ('[{"url":1}]', 'field "url": want a string, got the number 1'),
        ('[{"name":true}]', 'field "name": want a string, got true'),
        ('[{"mirrors":"u"}]', 'field "mirrors": want a list'),
        ('[{"mirrors":[[]]}]', r'field "mirrors\[0\]": want a string'),
        ('[{"verification":"none"}]', 'field "verification": want an object'),
        ("[" * 100_000, "nested more than"),
    ],
)
def test_what_is_no_gallery_list_says_where(text: str, reason: str) -> None:
    with pytest.raises(GalleryListUnreadable, match=reason) as caught:
        parse_galleries(text)
    assert str(caught.value).startswith("decoding backend galleries: ")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "URL", "mirrors", "x"]), inner),
)


@given(_json)
def test_any_json_is_a_list_of_galleries_or_an_error(document: object) -> None:
    try:
        galleries = parse_galleries(json.dumps(document))
    except GalleryListUnreadable:
        return
    assert all(isinstance(gallery.url, str) for gallery in galleries)
