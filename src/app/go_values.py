"""Values as Go writes them: LocalAI's flags and variables are read by Go's and kong's rules."""

import re
from dataclasses import dataclass

from ..domain.errors import WorkerError

# Source: Go's documented time.ParseDuration; both micro signs are accepted.
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]+)")
_MOST_NANOSECONDS = 2**63 - 1

# Source: Go's documented integer literals, as strconv.ParseInt reads them with base 0.
_INTEGER = re.compile(
    r"(?P<sign>[+-]?)(?:"
    r"0[xX](?P<hex>(?:_?[0-9a-fA-F])+)|0[bB](?P<binary>(?:_?[01])+)|0[oO]?(?P<octal>(?:_?[0-7])+)"
    r"|(?P<decimal>0|[1-9](?:_?[0-9])*))"
)
_BASES = {"hex": 16, "binary": 2, "octal": 8, "decimal": 10}

# Source: kong's boolean mapper, as the LocalAI worker uses it.
_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no"})


@dataclass(eq=False)
class WrongValue(WorkerError):
    """A text that is not the value it should be; `right` completes "must be ..."."""

    text: str
    right: str

    def __str__(self) -> str:
        return f'"{self.text}" must be {self.right}'


def parse_duration_s(text: str) -> float:
    """Seconds of a Go duration: an optional sign, then numbers with units (`10s`, `1h30m`, `1.5s`), or `0`.

    Raises:
        WrongValue: `text` is something else (a number without a unit, an unknown unit), or longer than
            Go can hold (292 years).
    """
    wrong = WrongValue(text, "a duration: numbers with the units ns, us, ms, s, m or h, like 10s or 1m30s")
    unsigned = text[1:] if text[:1] in {"+", "-"} else text
    if unsigned == "0":
        return 0.0
    total_ns = at = 0
    while at < len(unsigned):
        part = _DURATION_PART.match(unsigned, at)
        if part is None or part[3] not in _NANOSECONDS or not (part[1] or part[2]):
            raise wrong
        whole, unit_ns = part[1].lstrip("0"), _NANOSECONDS[part[3]]
        fraction = (part[2] or "")[:18]  # a finer one is below a nanosecond, and Go drops it too
        total_ns += int(whole[:20] or "0") * unit_ns + int(fraction or "0") * unit_ns // 10 ** len(fraction)
        if len(whole) > 20 or total_ns > _MOST_NANOSECONDS:
            raise WrongValue(text, "a duration of at most 2562047h")
        at = part.end()
    if not unsigned:
        raise wrong
    return (-total_ns if text[0] == "-" else total_ns) / 1e9


def parse_int(text: str) -> int:
    """The value of a Go integer literal: `50`, `1_000`, `0x10`, `0b11`, `0o17`, and `017` is octal too.

    Raises:
        WrongValue: `text` is no such literal, or does not fit 64 bits.
    """
    found = _INTEGER.fullmatch(text)
    if found is None:
        raise WrongValue(text, "a whole number, like 60000")
    name, digits = next((name, found[name]) for name in _BASES if found[name] is not None)
    # 64 binary digits are the longest that can fit; int() itself refuses thousands of decimal ones.
    digits = digits.replace("_", "").lstrip("0")
    value = int(f"{found['sign']}{digits or '0'}", _BASES[name]) if len(digits) <= 64 else 2**64
    if not -(2**63) <= value < 2**63:
        raise WrongValue(text, "a whole number of at most 64 bits")
    return value


def parse_bool(text: str) -> bool:
    """True for `true`, `1`, `yes`, False for `false`, `0`, `no`, in any case.

    Raises:
        WrongValue: `text` is anything else, the empty text too.
    """
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise WrongValue(text, "true, 1, yes, false, 0 or no")
