"""The tests' own registry, each connection limited: `python -m benchmarks.limited_registry BYTES_PER_S`.

Prints where it listens; `/sent` tells how many bytes of content it has sent.
"""

import sys
import threading

from tests.registry import OwnRegistry, Request


def main() -> None:
    """Serve until killed."""
    registry = OwnRegistry(bytes_per_s=float(sys.argv[1]))

    def tell_sent(request: Request) -> bool:
        if request.path != "/sent":
            return False
        request.answer(200, str(registry.sent_bytes).encode())
        return True

    registry.faults.append(tell_sent)
    print(registry.host, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
