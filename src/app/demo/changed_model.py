"""Another version of the demo's model: of the same size, and with other embeddings."""

from pathlib import Path

_CHANGED = "embeddings.word_embeddings.weight"


def write_changed_model(source: Path, target: Path) -> None:
    """Write `source` with its words' vectors turned round as `target`."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(source)
    tensors[_CHANGED] = tensors[_CHANGED][:, ::-1].copy()
    save_file(tensors, target)
