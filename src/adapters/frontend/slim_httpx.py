"""httpx without its own command line.

That would bring click, rich and pygments, a tenth of a second and 4 MiB a worker has no use for; httpx does
without when the module cannot be imported.
"""

import sys

sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None is how imports are blocked

import httpx  # noqa: E402 - after the line above

__all__ = ["httpx"]
