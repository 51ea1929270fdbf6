"""What the kernel says about memory that ran out."""

from typing import Protocol


class OomKills(Protocol):
    def count(self) -> int | None:
        """How many processes the kernel has killed so far because memory ran out; None where nobody tells.

        It counts in the control group of this process (a container, a systemd unit), or on the whole
        machine where there is none, and never decreases.
        """
