"""A case on disk: what `simulate fleet` writes after a violation and `simulate replay` plays again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from .... import __version__
from .plan import Case, WrongPlan
from .simulation import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A case with what came of it; another version of the worker may well do something else."""

    case: Case
    digest: str
    violation: str
    version: str = __version__

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        return cls(case=outcome.case, digest=outcome.digest, violation=str(outcome.violation or ""))

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        values = {**asdict(self), "case": self.case.to_json()}
        path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote.

        Raises:
            WrongPlan: it is something else.
            OSError: it cannot be read.
        """
        try:
            values: Any = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                case=Case.from_json(values["case"]),
                digest=str(values["digest"]),
                violation=str(values["violation"]),
                version=str(values["version"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WrongPlan("replay file", str(path), "one that `simulate fleet` wrote") from error
