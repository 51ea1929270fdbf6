"""Git's name for the content of a file."""

import hashlib


def git_blob(size_bytes: int) -> "hashlib._Hash":
    """A hash to be fed with the `size_bytes` of a file; its hex digest is then Git's id of that blob."""
    return hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
