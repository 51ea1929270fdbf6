"""One machine in memory: what the fakes of its processes and its network share."""

from dataclasses import dataclass, field


@dataclass
class InMemoryMachine:
    """The node that simulated processes run on."""

    listeners: dict[int, object] = field(default_factory=dict)  # port -> who listens
