"""What a refusal of the file system means for an artifact."""

import errno
from pathlib import Path

from ...domain.errors import FileUnwritable, NoSpace

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def unwritable(path: Path, error: OSError) -> FileUnwritable:
    """The domain's error for `error`, met while `path` was written."""
    reason = error.strerror or str(error)
    return NoSpace(path, reason) if error.errno in _FULL else FileUnwritable(path, reason)
