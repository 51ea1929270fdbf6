"""Which entries of a tree the layer in hand put there itself."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class LayerClaims:
    """What a whiteout spares: it hides what the layers below put there, not what its own layer did."""

    root: str
    _layer: int = 0
    _claimed: set[str] = field(default_factory=set)  # paths and all their parents; none for the first

    def begin_layer(self) -> None:
        """What is there now are the layers below."""
        self._layer += 1
        self._claimed.clear()

    @property
    def is_first_layer(self) -> bool:
        """Whether there is nothing below to hide."""
        return self._layer <= 1

    def claim(self, path: str) -> None:
        """The layer in hand put `path` there."""
        if self._layer <= 1:
            return
        while path not in self._claimed and path != self.root:
            self._claimed.add(path)
            path = path.rpartition("/")[0]

    def is_claimed(self, path: str) -> bool:
        """Whether the layer in hand put `path`, or something below it, there."""
        return path in self._claimed
