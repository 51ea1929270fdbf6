"""TCP ports for tests: free when asked for, and never handed out twice in one run."""

import socket

_given: set[int] = set()


def free_port() -> int:
    """A port nobody listens on and no other test of this run has got."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("0.0.0.0", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port
