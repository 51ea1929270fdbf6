"""The node: this machine as the frontend knows it."""

from typing import NewType

NodeId = NewType("NodeId", str)
"""The id the frontend gave this node; its NATS subjects are built from it."""

# Columns of the frontend's label table. An older frontend drops the whole label set when one is longer.
_LABEL_KEY_CHARS = 128
_LABEL_VALUE_CHARS = 255


def parse_labels(text: str) -> dict[str, str]:
    """Labels of `k=v,k=v`: trimmed, split at the first `=`; entries without one are dropped, later ones win.

    Source: LocalAI core/cli/worker.go.
    """
    pairs = (entry.partition("=") for entry in text.split(","))
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def label_warnings(text: str) -> tuple[str, ...]:
    """What of the label text `k=v,k=v` will not arrive at the frontend as written, one line each."""
    dropped = [entry.strip() for entry in text.split(",") if entry.strip() and "=" not in entry]
    warnings = [f'"{entry}" has no "=" and is ignored; labels are written key=value' for entry in dropped]
    for key, value in parse_labels(text).items():
        if not key:
            warnings.append(f'"={value}" has an empty key; labels are written key=value')
        if len(key) > _LABEL_KEY_CHARS:
            warnings.append(f'key "{key[:20]}..." is longer than {_LABEL_KEY_CHARS} characters')
        if len(value) > _LABEL_VALUE_CHARS:
            warnings.append(f'the value of "{key[:20]}" is longer than {_LABEL_VALUE_CHARS} characters')
    return tuple(warnings)
