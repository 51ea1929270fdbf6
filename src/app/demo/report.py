"""The demo's voice: each step with its time, a spinner on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass
class StepReport:
    """Prints steps as they end; `monotonic_s` is the clock the times are taken from."""

    console: Console
    monotonic_s: Callable[[], float] = time.monotonic
    current: str = ""
    _began_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._began_s = self.monotonic_s()

    @contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """One step; what the body puts into the list is printed beside the title."""
        details: list[str] = []
        self.current = title
        began_s = self.monotonic_s()
        with self.console.status(title):
            yield details
        took_s = self.monotonic_s() - began_s
        self.console.print(
            f"[green]✓[/] {title}" + "".join(f"  [dim]{detail}[/]" for detail in details),
            f"[cyan]{took_s:.2f} s[/]",
            highlight=False,
            soft_wrap=True,
        )

    def similarities(self, sentences: Sequence[str], cosines: Sequence[Sequence[float]]) -> None:
        """The cosine of every pair of sentences."""
        table = Table(title="cosine similarity", title_justify="left")
        table.add_column("sentence")
        for number in range(1, len(sentences) + 1):
            table.add_column(str(number), justify="right")
        for number, (sentence, row) in enumerate(zip(sentences, cosines, strict=True), 1):
            table.add_row(f"{number} {sentence}", *(f"{cosine:.3f}" for cosine in row))
        self.console.print(table)

    def done(self) -> None:
        """The last line of a demo that went well."""
        self.console.print(f"all of it in {self.monotonic_s() - self._began_s:.1f} s", highlight=False)
        self.console.print("demo: ok", highlight=False)
