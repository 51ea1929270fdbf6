"""Keys that try to leave the directory they lead into, percent-encoded as they go on the wire."""

from typing import NamedTuple


class Attempt(NamedTuple):
    """`raw` follows `/v1/files/`; `lands` is where it leads, `root/relative`, or None for a refusal."""

    raw: str
    lands: str | None


ATTEMPTS = [
    # Upwards, plainly and encoded, from each of the three directories.
    Attempt("models/../../etc/passwd", None),
    Attempt("models/..%2F..%2Fetc%2Fcron.d%2Fx", None),
    Attempt("models/%2e%2e/%2e%2e/etc/passwd", None),
    Attempt("models/%2E%2E%2F%2E%2E%2Fetc%2Fpasswd", None),
    Attempt("models/.%2e/x", None),
    Attempt("models/%2e./x", None),
    Attempt("models/..", None),
    Attempt("models/../", None),
    Attempt("models/%2e%2e", None),
    Attempt("models%2F..%2F..%2Fetc%2Fpasswd", None),
    Attempt("models%2f%2e%2e%2fx", None),
    Attempt("%6dodels/../x", None),
    Attempt("data/../models/x", None),
    Attempt("data/..%2Fmodels%2Fx", None),
    Attempt("data/%2e%2e/%2e%2e/%2e%2e/%2e%2e/root/.ssh/authorized_keys", None),
    Attempt("..", None),
    Attempt("../x", None),
    Attempt("..%2Fx", None),
    Attempt("%2e%2e/x", None),
    Attempt("%2e%2e%2fmodels%2fx", None),
    Attempt("../../../../../../../../etc/passwd", None),
    Attempt("ephemeral/../../models/x", None),
    Attempt("ephemeral/inputs/..%2F..%2F..%2Fx", None),
    Attempt("/../x", None),
    Attempt("//../x", None),
    Attempt("./../x", None),
    Attempt("models/./../x", None),
    Attempt("models//../x", None),
    Attempt("models/%2F../x", None),
    # Down first, then further up.
    Attempt("models/a/../../x", None),
    Attempt("models/a/b/../../../x", None),
    Attempt("models/a%2F..%2F..%2Fx", None),
    Attempt("models/a/%2e%2e/%2e%2e/x", None),
    Attempt("a/../..", None),
    # Out and back in by the directory's own name: still out.
    Attempt("models/../models/x", None),
    Attempt("models/..%2Fmodels%2Fx", None),
    Attempt("../staging/x", None),
    # Down and up again by as much: legal.
    Attempt("models/a/../b", "models/b"),
    Attempt("models/a/..%2Fb", "models/b"),
    Attempt("models/a/b/../../c", "models/c"),
    Attempt("a/%2e%2e/b", "staging/b"),
    # Absolute paths stay below.
    Attempt("/etc/passwd", "staging/etc/passwd"),
    Attempt("%2Fetc%2Fpasswd", "staging/etc/passwd"),
    Attempt("//etc/passwd", "staging/etc/passwd"),
    Attempt("models/%2Fetc%2Fpasswd", "models/etc/passwd"),
    Attempt("models//etc/passwd", "models/etc/passwd"),
    Attempt("models/%2F%2F%2Fetc/passwd", "models/etc/passwd"),
    Attempt("data/%2Froot/.ssh/id", "data/root/.ssh/id"),
    Attempt("/models/x", "staging/models/x"),
    # Slashes and dots that count for nothing.
    Attempt("models/a//b", "models/a/b"),
    Attempt("models/a/./b", "models/a/b"),
    Attempt("models/%2e/a", "models/a"),
    Attempt("models/a/", "models/a"),
    Attempt("models/a%2F", "models/a"),
    # Encoded twice: decoded once, these are odd but harmless names.
    Attempt("models/%252e%252e%252fx", "models/%2e%2e%2fx"),
    Attempt("models/..%252f..%252fx", "models/..%2f..%2fx"),
    Attempt("models/%25%32%65%25%32%65/x", "models/%2e%2e/x"),
    Attempt("%252e%252e/x", "staging/%2e%2e/x"),
    # Look-alikes are names like any other.
    Attempt("models/...", "models/..."),
    Attempt("models/.../x", "models/.../x"),
    Attempt("models/..%20/x", "models/.. /x"),
    Attempt("models/..%5C..%5Cx", "models/..\\..\\x"),
    Attempt("models/..;/x", "models/..;/x"),
    Attempt("models/%EF%BC%8E%EF%BC%8E/x", "models/．．/x"),
    Attempt("models/%E2%80%A5/x", "models/‥/x"),
    Attempt("models/..%E2%88%95x", "models/..∕x"),
    Attempt("models/~root/x", "models/~root/x"),
    Attempt("models/%0d%0ax", "models/\r\nx"),
    Attempt("models", "staging/models"),
    Attempt("Models/../x", "staging/x"),
    # Bytes that are no name, and overlong encodings of dot and slash.
    Attempt("models/x%00", None),
    Attempt("models/%00", None),
    Attempt("models/x%00/../y", None),
    Attempt("models/%c0%ae%c0%ae/x", None),
    Attempt("models/..%c0%afx", None),
    Attempt("models/%e0%80%ae%e0%80%ae/x", None),
    Attempt("models/%ff", None),
    Attempt("models/%ed%a0%80", None),
    # The worker's own names.
    Attempt("models/.x.0123456789abcdef.incoming", None),
    Attempt("models/.x.0.incoming/y", None),
    Attempt("%2ex.0.incoming", None),
]
