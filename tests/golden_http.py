"""The recorded HTTP exchanges under tests/golden/http."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DIRECTORY = Path(__file__).parent / "golden" / "http"


@dataclass(frozen=True)
class Exchange:
    """One request and its answer; bodies are decoded JSON, text, or None for none."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    status: int
    answer_headers: Mapping[str, str]
    answer: Any

    @property
    def content(self) -> bytes:
        """The request's body as bytes."""
        if isinstance(self.body, str):
            return self.body.encode()
        return b"" if self.body is None else json.dumps(self.body).encode()


def golden_http(name: str) -> Exchange:
    """The exchange recorded in `<name>.json`."""
    recorded = json.loads((_DIRECTORY / f"{name}.json").read_text())
    request, response = recorded["request"], recorded["response"]
    return Exchange(
        request["method"],
        request["path"],
        request["headers"],
        request["body"],
        response["status"],
        response["headers"],
        response["body"],
    )
