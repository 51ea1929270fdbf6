"""A scenario file: which nodes take part, what is done, what must come of it.

```yaml
name: a cold model
covers: [E01]             # rows of the sheet, for the reader
speak: [seed, newer]      # generations of the protocol it is played with
nodes: {a: {}, b: {LOCALAI_MAX_REPLICAS_PER_MODEL: "2"}}   # workers and their settings
steps:
  - model: {name: phi, backend: playable, options: {ModelFile: phi.bin, Model: phi.bin}}
  - load: {model: phi}
    expect: {node: a}
    save: loaded
  - infer: {model: phi, rpc: Predict, fields: {Prompt: hello}}
    expect: {message: {$contains: hello}}
```
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ....adapters.memory.frontend_nodes import Generation
from ....domain.errors import WorkerError

_GENERATIONS: tuple[Generation, ...] = ("seed", "newer")
_TOP = ("name", "covers", "speak", "nodes", "steps", "approve", "needs", "login", "storage")
_BESIDE = ("expect", "fails", "save", "within", "says")
TOGETHER = "together"
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(eq=False)
class ScenarioInvalid(WorkerError):
    """A scenario cannot be read; `where` names the file and the place in it."""

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to do. `fails` is a text that its error must hold; `expect` is compared with what it gives.

    `within_s`: until then it is done again as long as it does not give what is expected. `together`: steps
    that are all done at once.
    """

    verb: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    expect: Any = None
    fails: str | None = None
    save: str = ""
    within_s: float = 0.0
    says: str = ""
    together: Sequence["Step"] = ()

    def __str__(self) -> str:
        """What a report calls it."""
        told = " ".join(f"{key}={value}" for key, value in self.arguments.items())
        return self.says or f"{self.verb} {told}".strip()[:120]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A whole scenario. `nodes`: settings of each worker by its name; `approve`: whether they are approved
    by themselves; `needs`: programs without which it cannot be played; `login`: NATS takes only minted users;
    `storage`: how files travel, `http` or `s3`.
    """

    name: str
    nodes: Mapping[str, Mapping[str, str]]
    steps: Sequence[Step]
    covers: Sequence[str] = ()
    speak: Sequence[Generation] = _GENERATIONS
    approve: bool = True
    needs: Sequence[str] = ()
    login: bool = False
    storage: str = "http"
    file: str = ""  # its file's name without the ending


def read_scenario(path: Path) -> Scenario:
    """The scenario in the file `path`.

    Raises:
        ScenarioInvalid: it cannot be read, or says something that no scenario can.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ScenarioInvalid(str(path), " ".join(str(error).split())) from error
    return replace(parse_scenario(document, str(path)), file=path.stem)


def parse_scenario(document: object, where: str) -> Scenario:
    """A scenario from its YAML values; `where` is what errors call it.

    Raises:
        ScenarioInvalid: a key is unknown, missing or of another kind.
    """
    top = _mapping(document, where)
    _only(top, _TOP, where)
    for key in ("name", "steps"):
        if key not in top:
            raise ScenarioInvalid(where, f"{key} is missing")
    speak = [str(each) for each in _sequence(top.get("speak", list(_GENERATIONS)), f"{where}: speak")]
    if not speak or set(speak) - set(_GENERATIONS):
        raise ScenarioInvalid(where, f"speak: {speak} is no list of {' and '.join(_GENERATIONS)}")
    nodes = {
        str(name): {
            str(key): str(value) for key, value in _mapping(settings or {}, f"{where}: nodes").items()
        }
        for name, settings in _mapping(top.get("nodes", {"a": {}}), f"{where}: nodes").items()
    }
    steps = _sequence(top["steps"], f"{where}: steps")
    return Scenario(
        name=str(top["name"]),
        covers=tuple(str(each) for each in _sequence(top.get("covers", []), f"{where}: covers")),
        speak=tuple(each for each in _GENERATIONS if each in speak),
        nodes=nodes,
        approve=bool(top.get("approve", True)),
        login=bool(top.get("login", False)),
        storage=_one_of(str(top.get("storage", "http")), ("http", "s3"), f"{where}: storage"),
        needs=tuple(str(each) for each in _sequence(top.get("needs", []), f"{where}: needs")),
        steps=tuple(parse_step(each, f"{where}: step {number}") for number, each in enumerate(steps, 1)),
    )


def parse_step(value: object, where: str) -> Step:
    """One step from its YAML values.

    Raises:
        ScenarioInvalid: it names no verb, or more than one.
    """
    mapping = _mapping(value, where)
    verbs = [key for key in mapping if key not in _BESIDE]
    if len(verbs) != 1:
        told = ", ".join(verbs) or "none"
        raise ScenarioInvalid(where, f"one verb is wanted, besides {', '.join(_BESIDE)}; there is: {told}")
    verb = verbs[0]
    steps: tuple[Step, ...] = ()
    arguments: Mapping[str, Any] = {}
    if verb == TOGETHER:
        members = _sequence(mapping[verb], f"{where}: {verb}")
        steps = tuple(parse_step(each, f"{where}.{number}") for number, each in enumerate(members, 1))
    else:
        arguments = _mapping(mapping[verb] or {}, f"{where}: {verb}")
    return Step(
        verb=verb,
        arguments=arguments,
        expect=mapping.get("expect"),
        fails=str(mapping["fails"]) if "fails" in mapping else None,
        save=str(mapping.get("save", "")),
        within_s=parse_duration(mapping.get("within", 0), where),
        says=str(mapping.get("says", "")),
        together=steps,
    )


def parse_duration(value: object, where: str) -> float:
    """Seconds: a number, or a text like `500ms`, `20s`, `2m`.

    Raises:
        ScenarioInvalid: it is neither.
    """
    text = str(value)
    unit = next((unit for unit in ("ms", "s", "m") if text.endswith(unit)), "s")
    try:
        return float(text.removesuffix(unit)) * _UNIT_S[unit]
    except ValueError as error:
        raise ScenarioInvalid(where, f"{text!r} is no duration like 500ms, 20s or 2m") from error


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ScenarioInvalid(where, f"a mapping is wanted, not {value!r}")
    return {str(key): each for key, each in value.items()}


def _sequence(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ScenarioInvalid(where, f"a list is wanted, not {value!r}")
    return value


def _only(mapping: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    if unknown := [key for key in mapping if key not in known]:
        raise ScenarioInvalid(where, f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")


def _one_of(value: str, known: Sequence[str], where: str) -> str:
    if value not in known:
        raise ScenarioInvalid(where, f"{value!r} is none of {', '.join(known)}")
    return value
