"""What `localai-worker backends explain` prints."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import PurePath

from ...domain.explain_backend import Explanation, TriedSource
from ...domain.install_progress import human_bytes

_TAKEN = "taken"


def explanation_json(explanation: Explanation) -> str:
    """One JSON object with everything; paths as texts."""

    def plain(value: object) -> str:
        return str(value) if isinstance(value, PurePath) else repr(value)

    return json.dumps({**asdict(explanation), "outcome": outcome(explanation)}, default=plain)


def explanation_text(explanation: Explanation) -> str:
    """Sections for people, the outcome last."""
    return "\n".join(_lines(explanation))


def outcome(explanation: Explanation) -> str:
    """What an install would come to, in one line."""
    installed, source = explanation.installed, explanation.source
    if installed is not None:
        return f"installed already: {installed.run_file}; nothing would be downloaded"
    if explanation.problem or source is None:
        return f"would fail: {explanation.problem or 'no source'}"
    return f"would install {source.uri} into {explanation.target}"


def _lines(explanation: Explanation) -> Iterator[str]:
    detection = explanation.detection
    yield f"capability: {detection.capability}"
    steps = [
        (step.rule, f"{step.found} -> {step.capability}" if step.capability else step.found)
        for step in detection.steps
    ]
    yield from _columns(steps)
    if explanation.considered:
        yield "gallery entries"
        yield from _columns(
            [
                (f"{each.entry.gallery.name}@{each.entry.name}", each.why_not or _TAKEN)
                for each in explanation.considered
            ]
        )
    if explanation.builds:
        yield "builds"
        yield from _columns(
            [(f"{each.capability}: {each.name}", each.why_not or _TAKEN) for each in explanation.builds]
        )
    if explanation.sources:
        yield "sources"
        yield from _columns([(source.uri, _said(source)) for source in explanation.sources])
    if explanation.trust:
        yield f"trust: {explanation.trust}"
    if explanation.disk is not None:
        estimate = explanation.source.estimate if explanation.source else None
        needed = f"about {human_bytes(estimate.disk_bytes)} needed, " if estimate else ""
        yield f"disk: {needed}{human_bytes(explanation.disk.available_bytes)} available"
    yield f"outcome: {outcome(explanation)}"


def _said(source: TriedSource) -> str:
    if source.estimate is None:
        return source.problem
    digest = f", {source.estimate.digest}" if source.estimate.digest else ""
    return f"{human_bytes(source.estimate.download_bytes)} to download{digest}"


def _columns(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max((len(left) for left, _ in rows), default=0)
    for left, right in rows:
        yield f"  {left:<{width}}  {right}".rstrip()
