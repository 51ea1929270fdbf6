"""Gallery documents in local YAML files: text stays text, and nothing hostile gets further than an error."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.galleries.files import FileDocuments
from localai_worker.adapters.galleries.yaml_text import parse_yaml
from localai_worker.domain.errors import ArtifactInvalid, ArtifactUnavailable
from localai_worker.domain.ports.galleries import PlainText

GOLDEN = Path(__file__).parents[1] / "golden/backends/gallery-index.yaml"


def test_the_golden_index_with_its_merge_keys() -> None:
    """G-1.2.14, G-1.2.15."""
    entries = parse_yaml(GOLDEN.read_bytes(), uri="file:///index.yaml")
    assert isinstance(entries, list)
    names = [entry["name"] for entry in entries]
    assert names[:3] == ["demo-engine", "demo-engine-development", "cpu-demo-engine"]
    concrete = entries[2]
    assert (concrete["alias"], concrete["version"]) == ("demo-engine", "1.10")
    assert concrete["capabilities"] == entries[0]["capabilities"]
    assert entries[1]["capabilities"] == {
        "default": "cpu-demo-engine-development",
        "nvidia-cuda-12": "cuda12-demo-engine-development",
    }


@pytest.mark.parametrize(
    "written",
    ["1.10", "1", "0x1F", "1e3", "yes", "true", "2026-04-20", "12:30:45", "1_000", ".inf", "'null'"],
)
def test_scalars_stay_the_text_they_were_written_as(written: str) -> None:
    """G-1.2.18."""
    assert parse_yaml(f"- version: {written}\n".encode(), uri="u") == [{"version": written.strip("'")}]


@pytest.mark.parametrize("written", ["", "~", "null", "Null", "NULL", "!!null ''"])
def test_null_is_no_text(written: str) -> None:
    assert parse_yaml(f"alias: {written}\n".encode(), uri="u") == {"alias": ""}


@pytest.mark.parametrize(
    ("document", "value"),
    [
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", {"x": "1", "y": "3"}),
        ("a: &a {x: 1}\nb: {y: 3, <<: *a, x: 2}", {"y": "3", "x": "2"}),
        ("a: [&a {x: 1}, &c {x: 2, z: 3}]\nb: {<<: [*a, *c]}", {"x": "1", "z": "3"}),
        ("a: &a {x: 1}\nb: {!!merge <<: *a}", {"x": "1"}),
        ("a: &a {x: 1}\nb: {'<<': z}", {"<<": "z"}),
        ("b: {x: 1, x: 2}", {"x": "2"}),
        ("a: &a word\nb: {*a : *a}", {"word": "word"}),
        ("b: {x: !custom 1.10, y: !!int '7'}", {"x": "1.10", "y": "7"}),
        ("b: |\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_merge_keys_aliases_and_tags(document: str, value: object) -> None:
    parsed = parse_yaml(document.encode(), uri="u")
    assert isinstance(parsed, dict)
    assert parsed["b"] == value


BOMB = "a: &a0 [x]\n" + "\n".join(f"k{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(50))
MERGE_BOMB = "a: &a {" + ", ".join(f"k{n}: 1" for n in range(3000)) + "}\nb:\n" + "- {<<: *a}\n" * 400


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"a: 1\n---\nb: 2\n", "2 YAML documents"),
        (b"a: [1\n", "no YAML"),
        (b"a: \xff\xfe\n", "no YAML"),
        (b"\tx: 1", "no YAML"),
        (b"a: *b\n", "alias *b refers to nothing"),
        (b"a: &a [*a]\n", "contains itself"),
        (b"a: &a {b: {<<: *a}}\n", "contains itself"),
        (b"? [a]\n: b\n", "as a mapping key"),
        (b"a: &a {}\nb: {*a : 1}\n", "a mapping key that is no text"),
        (b"a: {<<: word}\n", "merge key"),
        (b"a: {<<: [word]}\n", "merge key"),
        (b"[" * 300_000, "nested deeper"),
        (b"- " * 300_000 + b"x", "nested deeper"),
        (b"{a: " * 300_000, "nested deeper"),
        (MERGE_BOMB.encode(), "more than 1000000 keys"),
    ],
)  # fmt: skip
def test_what_is_no_sound_document_is_refused(document: bytes, reason: str) -> None:
    """G-W32: a bad index never ends the process (libyaml's own composer crashes on deep nesting)."""
    with pytest.raises(ArtifactInvalid) as caught:
        parse_yaml(document, uri="u")
    assert reason in str(caught.value)


def test_an_alias_bomb_stays_as_small_as_it_was_written() -> None:
    parsed = parse_yaml(BOMB.encode(), uri="u")
    assert isinstance(parsed, dict)
    assert len(parsed) == 51


@pytest.mark.parametrize(
    ("document", "plain"),
    [
        ("x: 1.10", True),
        ("x: '1.10'", False),
        ('x: "1.10"', False),
        ("x: |\n  1.10", False),
        ("x: !!str 1.10", False),
        ("x:", True),
        ("x: ''", False),
        ("x: ~", True),
    ],
)
def test_scalars_without_quotes_are_told_from_those_with(document: str, plain: bool) -> None:
    parsed = parse_yaml(document.encode(), uri="u")
    assert isinstance(parsed, dict)
    assert isinstance(parsed["x"], PlainText) == plain


@given(st.binary(max_size=200) | st.text(alphabet="-:[]{}&*<>!|? \n'\"ab", max_size=60).map(str.encode))
def test_no_text_makes_it_fail_otherwise_than_foreseen(document: bytes) -> None:
    try:
        parsed = parse_yaml(document, uri="u")
    except ArtifactInvalid:
        return
    assert isinstance(parsed, dict | list | str)


def test_a_thousand_entries_are_all_there() -> None:
    meta = "- &m{0}\n  name: meta{0}\n  version: 1.10\n  capabilities: {{default: cpu-{0}}}\n"
    concrete = "- !!merge <<: *m{0}\n  name: cpu-{0}\n  uri: quay.io/x:{0}\n"
    document = "".join((meta + concrete).format(number) for number in range(500))
    entries = parse_yaml(document.encode(), uri="u")
    assert isinstance(entries, list)
    assert len(entries) == 1000
    assert entries[-1]["capabilities"] == {"default": "cpu-499"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "backends/sub").mkdir(parents=True)
    (tmp_path / "backends/sub/index.yaml").write_text("[{name: inside}]")
    (tmp_path / "outside.yaml").write_text("[{name: outside}]")
    (tmp_path / "backends/leads-out.yaml").symlink_to("../outside.yaml")
    (tmp_path / "backends/leads-in.yaml").symlink_to("sub/index.yaml")
    (tmp_path / "backends/circle.yaml").symlink_to("circle.yaml")
    (tmp_path / "linked").symlink_to("backends")
    return tmp_path


@pytest.mark.parametrize(
    "path", ["backends/sub/index.yaml", "backends/leads-in.yaml", "linked/sub/index.yaml"]
)
@pytest.mark.parametrize("trusted", ["backends", "linked"])
async def test_an_index_below_the_trusted_root_is_read(root: Path, path: str, trusted: str) -> None:
    """G-1.3.4."""
    document = await FileDocuments().fetch(f"file://{root}/{path}", trusted_root=root / trusted)
    assert document is not None
    assert document.content == b"[{name: inside}]"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("outside.yaml", "path is outside of trusted root"),
        ("backends/../outside.yaml", "path is outside of trusted root"),
        ("backends/leads-out.yaml", "path is outside of trusted root"),
        ("backends", "path is outside of trusted root"),
        ("backends/sub", "no regular file"),
        ("backends/missing.yaml", "No such file"),
        ("backends/circle.yaml", ""),
        ("backends/\0", "null"),
    ],
)
async def test_anything_else_is_unavailable(root: Path, path: str, reason: str) -> None:
    """G-1.3.4."""
    with pytest.raises(ArtifactUnavailable) as caught:
        await FileDocuments().fetch(f"file://{root}/{path}", trusted_root=root / "backends")
    assert reason in caught.value.reason


async def test_a_relative_path_or_a_missing_root_is_unavailable(root: Path) -> None:
    with pytest.raises(ArtifactUnavailable, match="no absolute path"):
        await FileDocuments().fetch("file://index.yaml", trusted_root=root)
    with pytest.raises(ArtifactUnavailable):
        await FileDocuments().fetch(f"file://{root}/outside.yaml", trusted_root=root / "missing")
    climbing = f"file://{root}/missing/../outside.yaml"
    with pytest.raises(ArtifactUnavailable, match="outside of trusted root"):
        await FileDocuments().fetch(climbing, trusted_root=root / "missing")
    with pytest.raises(ArtifactUnavailable, match="No such file"):
        await FileDocuments().fetch(f"file://{root}/missing/a.yaml", trusted_root=root / "missing")


async def test_an_index_too_large_to_be_one_is_refused(root: Path) -> None:
    with pytest.raises(ArtifactInvalid, match="larger than 10 bytes"):
        await FileDocuments(limit_bytes=10).fetch(
            f"file://{root}/backends/sub/index.yaml", trusted_root=root / "backends"
        )


def test_the_yaml_library_is_loaded_only_when_an_index_is_read() -> None:
    code = "import sys, localai_worker.adapters.galleries.documents; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
