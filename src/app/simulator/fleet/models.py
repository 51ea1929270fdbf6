"""The models of a fleet: what they are and how many replicas of them are wanted."""

from ..cluster import ModelPolicy
from .plan import FleetPlan
from .registry import BACKENDS

_GIB = 1 << 30


def policies_of(plan: FleetPlan) -> list[ModelPolicy]:
    """The models of a plan, the most popular first; a quarter of them always has replicas."""
    draw = plan.random("models")
    wanted = max(1, plan.model_count // 4)
    return [
        ModelPolicy(
            model=f"model-{number:04}",
            backend=draw.choice(BACKENDS),
            min_replicas=1 + draw.randrange(2) if number < wanted and plan.nodes > 1 else 0,
            max_replicas=4 if number < wanted else 2,
            vram_bytes=draw.choice((2, 4, 8, 14)) * _GIB,
            size_bytes=draw.choice((1, 3, 8)) * _GIB,
        )
        for number in range(plan.model_count)
    ]
