"""all-MiniLM-L6-v2 in numpy: a BERT encoder of 6 layers, 12 heads of 32, hidden size 384.

Weights are those of sentence-transformers/all-MiniLM-L6-v2 (`model.safetensors`, 90,868,376 bytes);
`tokenizer.json` lies beside them. An embedding is the mean of the last layer over all tokens, scaled to
length 1. Texts are cut at 256 tokens, as the model was trained and published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

LAYERS = 6
HEADS = 12
HEAD_SIZE = 32
HIDDEN = HEADS * HEAD_SIZE
MAX_TOKENS = 256
LAYER_NORM_EPS = 1e-12  # config.json, layer_norm_eps
WEIGHTS_NAME = "model.safetensors"
TOKENIZER_NAME = "tokenizer.json"

Array = npt.NDArray[np.float32]


class ModelUnusable(Exception):
    """The model's files are missing or are not those of all-MiniLM-L6-v2; the text says what to stage."""


class TokensRefused(Exception):
    """A request brings token ids that the vocabulary does not have."""


@dataclass(frozen=True)
class MiniLM:
    """A loaded model; stateless, so any number of threads may embed with it at once."""

    tokenizer: Tokenizer
    weights: Mapping[str, Array]

    @classmethod
    def load(cls, model_file: str, tokenizer: str = "") -> MiniLM:
        """Read the model.

        `model_file` is the path of model.safetensors or of a directory that holds it; `tokenizer` the path of
        tokenizer.json or of its directory, relative ones counted from the weights; empty means beside them.

        Raises:
            ModelUnusable: a file is missing, unreadable or of another model.
        """
        if not model_file:
            raise ModelUnusable(f"ModelFile is empty: it must name {WEIGHTS_NAME} or its directory")
        weights_file = _named_or_inside(Path(model_file), WEIGHTS_NAME)
        weights = _read_weights(weights_file)
        vocabulary_size = len(weights["embeddings.word_embeddings.weight"])
        tokenizer_file = _named_or_inside(weights_file.parent / tokenizer, TOKENIZER_NAME)
        return cls(_read_tokenizer(tokenizer_file, vocabulary_size), weights)

    @property
    def size_bytes(self) -> int:
        """What the weights take in memory."""
        return sum(array.nbytes for array in self.weights.values())

    def tokens_of(self, text: str) -> list[int]:
        """Token ids of `text`, [CLS] and [SEP] included, at most 256; an empty text has just those two."""
        return list(self.tokenizer.encode(text).ids)

    def tokens_around(self, ids: Sequence[int]) -> list[int]:
        """`ids` between [CLS] and [SEP] (added where they are not there yet), cut to 256 in all.

        Raises:
            TokensRefused: an id is outside the vocabulary.
        """
        vocabulary_size = len(self.weights["embeddings.word_embeddings.weight"])
        for position, token in enumerate(ids):
            if not 0 <= token < vocabulary_size:
                allowed = f"token ids of this model are 0 to {vocabulary_size - 1}"
                raise TokensRefused(f"EmbeddingTokens[{position}] is {token}; {allowed}")
        first, last = self.tokens_of("")
        inner = list(ids)
        if inner[:1] == [first]:
            inner = inner[1:]
        if inner[-1:] == [last]:
            inner = inner[:-1]
        return [first, *inner[: MAX_TOKENS - 2], last]

    def embed(self, tokens: Sequence[int]) -> Array:
        """The embedding of 1 to 256 token ids: shape (384,), length 1."""
        states = self._normalised(
            self.weights["embeddings.word_embeddings.weight"][np.asarray(tokens)]
            + self.weights["embeddings.position_embeddings.weight"][: len(tokens)]
            + self.weights["embeddings.token_type_embeddings.weight"][0],
            "embeddings.LayerNorm",
        )
        for layer in range(LAYERS):
            states = self._encode(states, f"encoder.layer.{layer}")
        mean: Array = states.mean(axis=0)
        unit: Array = mean / np.linalg.norm(mean)
        return unit

    def _encode(self, states: Array, layer: str) -> Array:
        """One encoder layer over `states`, shape (tokens, 384)."""
        queries, keys, values = (
            self._linear(states, f"{layer}.attention.self.{role}")
            .reshape(-1, HEADS, HEAD_SIZE)
            .swapaxes(0, 1)
            for role in ("query", "key", "value")
        )
        scores = queries @ keys.swapaxes(1, 2) / np.float32(np.sqrt(HEAD_SIZE))
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        attended = (shares @ values).swapaxes(0, 1).reshape(-1, HIDDEN)
        states = self._normalised(
            states + self._linear(attended, f"{layer}.attention.output.dense"),
            f"{layer}.attention.output.LayerNorm",
        )
        widened = gelu(self._linear(states, f"{layer}.intermediate.dense"))
        return self._normalised(
            states + self._linear(widened, f"{layer}.output.dense"), f"{layer}.output.LayerNorm"
        )

    def _linear(self, states: Array, name: str) -> Array:
        product: Array = states @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return product

    def _normalised(self, states: Array, name: str) -> Array:
        centred = states - states.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        scaled: Array = centred / np.sqrt(variance + np.float32(LAYER_NORM_EPS))
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def gelu(x: Array) -> Array:
    """The exact GELU, x * P(X <= x) for a standard normal X, to 1e-6.

    numpy has no erf: this is formula 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical
    Functions, whose error stays under 1.5e-7.
    """
    z = np.abs(x) * np.float32(np.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    upper_tail = 0.5 * series * np.exp(-z * z)  # P(X > |x|)
    result: Array = x * np.where(x < 0, upper_tail, 1 - upper_tail)
    return result


def _named_or_inside(path: Path, name: str) -> Path:
    """`path`, or the file `name` in it when `path` is a directory."""
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise ModelUnusable(
            f"{file} is missing: stage {WEIGHTS_NAME} and {TOKENIZER_NAME} of sentence-transformers/"
            f"all-MiniLM-L6-v2 in one directory and name it, or the weights, as ModelFile"
        )
    return file


def _read_weights(file: Path) -> dict[str, Array]:
    """The weights an embedding needs, each checked for its shape."""
    try:
        with safe_open(str(file), framework="np") as stored:
            present = set(stored.keys())
            if missing := sorted(_SHAPES.keys() - present):
                raise ModelUnusable(
                    f"{file} lacks {missing[0]} and {len(missing) - 1} more: not all-MiniLM-L6-v2"
                )
            weights = {name: stored.get_tensor(name) for name in _SHAPES}
    except (SafetensorError, OSError) as error:
        raise ModelUnusable(
            f"{file} cannot be read as safetensors ({error}): stage {WEIGHTS_NAME} again"
        ) from error
    for name, shape in _SHAPES.items():
        if weights[name].shape != shape or weights[name].dtype != np.float32:
            raise ModelUnusable(
                f"{file}: {name} is {weights[name].dtype} {list(weights[name].shape)}, "
                f"all-MiniLM-L6-v2 has float32 {list(shape)}"
            )
    return weights


def _read_tokenizer(file: Path, vocabulary_size: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception, for any defect of the file
        raise ModelUnusable(
            f"{file} cannot be read as a tokenizer ({error}): stage {TOKENIZER_NAME} again"
        ) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    known, around = tokenizer.get_vocab_size(), len(tokenizer.encode("").ids)
    if known > vocabulary_size or around != 2:
        raise ModelUnusable(
            f"{file} is of another model: it knows {known} tokens and puts {around} around a text, "
            f"all-MiniLM-L6-v2 has {vocabulary_size} and 2"
        )
    return tokenizer


def _shapes() -> dict[str, tuple[int, ...]]:
    """Every weight an embedding needs, with its shape (config.json and the published weights)."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (30522, HIDDEN),
        "embeddings.position_embeddings.weight": (512, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
    }
    norms = ["embeddings.LayerNorm"]
    linears: dict[str, tuple[int, int]] = {}
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linears[f"{layer}.attention.{part}"] = (HIDDEN, HIDDEN)
        linears[f"{layer}.intermediate.dense"] = (4 * HIDDEN, HIDDEN)
        linears[f"{layer}.output.dense"] = (HIDDEN, 4 * HIDDEN)
    for name in norms:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (HIDDEN,)
    for name, (outputs, inputs) in linears.items():
        shapes[f"{name}.weight"] = (outputs, inputs)
        shapes[f"{name}.bias"] = (outputs,)
    return shapes


_SHAPES = _shapes()
