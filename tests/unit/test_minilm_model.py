"""The example's model code, loaded from examples/: its arithmetic, its tokens and what it refuses."""

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from localai_worker.app.demo.distributions import model_files

EXAMPLE = Path(__file__).parents[2] / "examples/backends/minilm"
CLS, SEP = 101, 102


@pytest.fixture(scope="module")
def example() -> Iterator[Any]:
    """The module `model` as `python backend.py` imports it: from its own directory, outside the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        yield importlib.import_module("model")
    sys.modules.pop("model", None)


@pytest.fixture(scope="module")
def weights() -> Path:
    return model_files()["model.safetensors"]


@pytest.fixture(scope="module")
def minilm(example: Any, weights: Path) -> Any:
    return example.MiniLM.load(str(weights.parent))


def test_gelu_is_exact_to_a_millionth(example: Any) -> None:
    x = np.linspace(-12, 12, 20_001, dtype=np.float32)
    exact = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x.tolist()]
    assert np.abs(example.gelu(x) - np.array(exact)).max() < 1e-6


def test_gelu_stays_in_single_precision_and_takes_the_extremes(example: Any) -> None:
    extremes = np.array([-3e38, -100, -0.0, 0.0, 100, 3e18], dtype=np.float32)
    with np.errstate(over="ignore"):
        result = example.gelu(extremes)
    assert result.dtype == np.float32
    assert result.tolist() == [0, 0, 0, 0, 100, np.float32(3e18)]


def test_an_embedding_has_384_numbers_and_length_1(minilm: Any) -> None:
    vector = minilm.embed(minilm.tokens_of("A man is eating food."))
    assert vector.shape == (384,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_an_empty_text_has_two_tokens_and_an_embedding(minilm: Any) -> None:
    assert minilm.tokens_of("") == [CLS, SEP]
    assert np.isfinite(minilm.embed([CLS, SEP])).all()


def test_a_long_text_is_cut_at_256_tokens(minilm: Any) -> None:
    tokens = minilm.tokens_of("word " * 1000)
    assert (len(tokens), tokens[0], tokens[-1]) == (256, CLS, SEP)


def test_token_ids_are_put_between_the_marks_once(minilm: Any) -> None:
    text = minilm.tokens_of("eating food")
    assert minilm.tokens_around(text[1:-1]) == text
    assert minilm.tokens_around(text) == text
    assert minilm.tokens_around([CLS]) == [CLS, SEP]
    assert len(minilm.tokens_around([1037] * 1000)) == 256


@pytest.mark.parametrize("token", [-1, 30522, 2**31 - 1])
def test_a_token_id_outside_the_vocabulary_is_refused(token: int, example: Any, minilm: Any) -> None:
    with pytest.raises(example.TokensRefused, match=rf"EmbeddingTokens\[1\] is {token}; .* 0 to 30521"):
        minilm.tokens_around([1037, token])


def test_no_model_file_is_refused(example: Any) -> None:
    with pytest.raises(example.ModelUnusable, match="ModelFile is empty"):
        example.MiniLM.load("")


def test_a_missing_file_is_named_with_what_to_stage(example: Any, tmp_path: Path) -> None:
    for model_file in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(example.ModelUnusable) as caught:
            example.MiniLM.load(str(model_file))
        assert str(caught.value).startswith(
            f"{tmp_path}/model.safetensors is missing: stage model.safetensors"
        )


def test_a_missing_tokenizer_is_named_where_it_was_looked_for(
    example: Any, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").symlink_to(weights)
    with pytest.raises(example.ModelUnusable, match=f"{tmp_path}/tokenizer.json is missing"):
        example.MiniLM.load(str(tmp_path))
    with pytest.raises(example.ModelUnusable, match=f"{tmp_path}/other/t.json is missing"):
        example.MiniLM.load(str(tmp_path), "other/t.json")
    assert example.MiniLM.load(str(tmp_path), str(weights.parent / "tokenizer.json"))
    assert example.MiniLM.load(str(tmp_path / "model.safetensors"), str(weights.parent))


def test_weights_cut_short_are_refused(example: Any, weights: Path, tmp_path: Path) -> None:
    with weights.open("rb") as whole:
        (tmp_path / "model.safetensors").write_bytes(whole.read(50_000))
    with pytest.raises(example.ModelUnusable, match="cannot be read as safetensors"):
        example.MiniLM.load(str(tmp_path))


def test_weights_of_another_model_are_refused(example: Any, tmp_path: Path) -> None:
    save_file({"encoder.weight": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(example.ModelUnusable, match=r"lacks .* not all-MiniLM-L6-v2"):
        example.MiniLM.load(str(tmp_path))


def test_weights_of_another_shape_are_refused(example: Any, tmp_path: Path) -> None:
    shapes = example._SHAPES | {"embeddings.word_embeddings.weight": (9, 384)}
    save_file(
        {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "model.safetensors"
    )
    with pytest.raises(example.ModelUnusable, match=r"float32 \[9, 384\], .* float32 \[30522, 384\]"):
        example.MiniLM.load(str(tmp_path))


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_broken_tokenizer_is_refused(content: str, example: Any, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(example.ModelUnusable, match=r"cannot be read as a tokenizer .* stage tokenizer.json"):
        example.MiniLM.load(str(weights), str(tmp_path))


def test_a_tokenizer_of_another_model_is_refused(example: Any, weights: Path, tmp_path: Path) -> None:
    Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(example.ModelUnusable, match="is of another model"):
        example.MiniLM.load(str(weights), str(tmp_path))
