"""The node: this machine as the frontend knows it."""

from typing import NewType

NodeId = NewType("NodeId", str)
"""The id the frontend gave this node; its NATS subjects are built from it."""
