"""How long something took, for people."""

_MINUTE_S = 60
_HOUR_S = 3600


def spoken(seconds: float) -> str:
    """`0.04 s`, `1.5 s`, `42 s`, `3 min 20 s`, `2 h 5 min`: two units at most, zero ones left out."""
    if seconds < 1:
        return f"{seconds:.2g} s"
    if seconds < 10:  # where a fraction stops to matter
        return f"{round(seconds, 1):g} s"
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return _joined(whole // _MINUTE_S, "min", whole % _MINUTE_S, "s")
    return _joined(whole // _HOUR_S, "h", whole % _HOUR_S // _MINUTE_S, "min")


def _joined(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit}" + (f" {small} {small_unit}" if small else "")
