"""Playing steps: verbs, expectations, variables, attempts; and the prompt that shares the verbs."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
import pytest

from localai_worker.app.simulator.failures import SimulationError
from localai_worker.app.simulator.scenario.document import parse_step
from localai_worker.app.simulator.scenario.player import Player, StepFailed, WrongVariable
from localai_worker.app.simulator.scenario.prompt import Prompt
from localai_worker.app.simulator.scenario.verbs import Verbs, WrongCall, verb
from localai_worker.app.virtual_time import run_in_virtual_time as in_virtual_time


@dataclass
class Counter:
    """A group of verbs with something to do."""

    count: int = 0
    seen: list[object] = field(default_factory=list)

    @verb
    async def add(self, number: int, label: str = "") -> object:
        """Add a number."""
        await anyio.lowlevel.checkpoint()
        self.count += number
        self.seen.append(label)
        return {"count": self.count, "label": label, "list": [{"deep name": self.count}]}

    @verb
    async def refuse(self) -> object:
        """Fail."""
        raise SimulationError("it will not be")

    @verb
    async def hang(self) -> object:
        """Never end."""
        await anyio.sleep_forever()
        return None

    async def secret(self) -> object:
        """No verb."""
        return None


@dataclass
class Told:
    """A report that keeps what it was told."""

    steps: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, what: str) -> Iterator[list[str]]:
        yield []
        self.steps.append(what)


@dataclass
class Stage:
    counter: Counter = field(default_factory=Counter)
    told: Told = field(default_factory=Told)
    player: Player = field(init=False)

    def __post_init__(self) -> None:
        self.player = Player(Verbs(self.counter), self.told)

    async def play(self, *steps: object) -> None:
        await self.player.play([parse_step(step, "here") for step in steps])


async def test_steps_are_played_in_order_with_what_earlier_ones_gave() -> None:
    stage = Stage()
    await stage.play(
        {"add": {"number": 2}, "save": "first"},
        {"add": {"number": "${first.count}", "label": "got ${first.count}"}, "expect": {"count": 4}},
        {"add": {"number": 1, "label": "${first.list.0[deep name]}"}},
    )
    assert stage.counter.seen == ["", "got 2", 2]
    assert stage.told.steps == [
        "add number=2",
        "add number=${first.count} label=got ${first.count}",
        "add number=1 label=${first.list.0[deep name]}",
    ]


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"add": {"number": 1}, "expect": {"count": 2}}, "result.count: 1 instead of 2"),
        ({"refuse": {}}, "it will not be"),
        ({"refuse": {}, "fails": "something else"}, "it should fail with 'something else'"),
        ({"add": {"number": 1}, "fails": "no"}, "it should fail with 'no'"),
        ({"nothing": {}}, "nothing: unknown; there are add, hang, refuse"),
        ({"secret": {}}, "unknown"),
        ({"add": {}}, "add: number must be given"),
        ({"add": {"number": 1, "colour": "red"}}, "add: takes no colour; it takes NUMBER, [label=]"),
        ({"add": {"number": "${never}"}}, "${never}: nothing was saved there; saved: nothing"),
    ],
)
async def test_a_step_that_does_not_come_out_stops_the_scenario(step: object, says: str) -> None:
    stage = Stage()
    with pytest.raises((StepFailed, WrongVariable)) as failed:
        await stage.play(step, {"add": {"number": 100}})
    assert says in str(failed.value)
    assert stage.counter.count < 100


async def test_a_step_that_fails_as_it_should_is_fine() -> None:
    await Stage().play({"refuse": {}, "fails": "will not"})


def test_a_step_is_done_again_within_its_time() -> None:
    async def main() -> None:
        stage = Stage()
        await stage.play({"add": {"number": 1}, "expect": {"count": 5}, "within": "10s"})
        assert stage.counter.count == 5
        with pytest.raises(StepFailed, match="instead of 3"):
            await stage.play({"add": {"number": 1}, "expect": {"count": 3}, "within": "1s"})

    in_virtual_time(main)


def test_a_step_that_hangs_is_given_up() -> None:
    async def main() -> None:
        with pytest.raises(StepFailed, match="not done within 120 s"):
            await Stage().play({"hang": {}})

    in_virtual_time(main)


async def test_steps_together_are_done_at_once() -> None:
    stage = Stage()
    await stage.play({"together": [{"add": {"number": 1}, "save": "one"}, {"add": {"number": 2}}]})
    assert stage.counter.count == 3
    assert "one" in stage.player.saved


async def lines_of(*lines: str) -> AsyncIterator[str]:
    for line in lines:
        yield line


async def test_the_prompt_takes_words_and_names_and_goes_on_after_mistakes() -> None:
    counter, written = Counter(), list[str]()
    prompt = Prompt(Verbs(counter), written.append)
    lines = [
        "add 2 hello",
        "add number=3 label='two words'  # a remark",
        "",
        "add",
        "add 1 2 3",
        "unknown",
        "refuse",
        "add 'unclosed",
        "help",
        "quit",
        "add 100",
    ]
    await prompt.obey(lines_of(*lines))
    assert counter.count == 5
    assert counter.seen == ["hello", "two words"]
    assert prompt.failed == 5
    assert any(line.startswith("! add: number must be given") for line in written)
    assert any(line.startswith("add NUMBER [label=]\n    Add a number.") for line in written)


async def test_a_verb_without_a_name_is_no_verb() -> None:
    with pytest.raises(WrongCall):
        await Verbs(Counter()).call("secret", {})
