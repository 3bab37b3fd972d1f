"""How the report writes numbers: as many digits as mean something, and units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

NOTHING = "\N{EN DASH}"


def quality(value: float | None) -> str:
    """``0.1013``."""
    return NOTHING if value is None else f"{value:.4f}"


def percent(value: float | None, digits: int = 1) -> str:
    """``97.3 %`` of 0.973."""
    return NOTHING if value is None else f"{100 * value:.{digits}f} %"


def signed(value: float | None) -> str:
    """``+0.0013``, with a real minus."""
    return NOTHING if value is None else f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def size(value: float | None) -> str:
    """``64.2 kB``, in powers of 1000."""
    if value is None:
        return NOTHING
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= least:
            return f"{significant(value / least)} {unit}"
    return f"{value:.0f} B"


def significant(value: float | None) -> str:
    """Three digits that count: ``0.312``, ``3.12``, ``31.2``, ``312``, ``3,120``."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    places = 2 if abs(value) >= 1 else 3
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{1 if abs(value) >= 10 else places}f}"


def count(value: float | None) -> str:
    """``107,520``."""
    return NOTHING if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """``48 s``, ``3 min 12 s``."""
    if value is None:
        return NOTHING
    whole = round(value)
    return f"{significant(value)} s" if value < 60 else f"{whole // 60:,} min {whole % 60:02d} s"


def times_smaller(now: float | None, before: float | None) -> str:
    """``4.2 times smaller`` as ``÷ 4.2``, growth as a factor."""
    if not now or not before:
        return NOTHING
    ratio = before / now
    if 0.995 < ratio < 1.005:
        return "the same"
    return f"÷ {significant(ratio)}" if ratio > 1 else f"\N{MULTIPLICATION SIGN} {significant(1 / ratio)}"


def relative(now: float, before: float) -> str:
    """``+2.1 %``, with a real minus."""
    return NOTHING if not before else f"{100 * (now / before - 1):+.1f} %".replace("-", "\N{MINUS SIGN}")


def interval(figures: Mapping[str, Any], name: str) -> Markup:
    """The difference to the teacher with its 95 % interval, which stands out when it does not hold 0."""
    low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
    if low is None or high is None:
        return Markup(NOTHING)
    sure = "" if low <= 0 <= high else (" up" if low > 0 else " down")
    text = Markup('<span class="difference{}">{}</span> <span class="interval">[{}, {}]</span>')
    return text.format(sure, signed(figures[name]), signed(low), signed(high))


def capitalized(text: str) -> str:
    """With a capital at the start, and otherwise as it is."""
    return text[:1].upper() + text[1:]


FILTERS: dict[str, Callable[..., Any]] = {
    "quality": quality,
    "percent": percent,
    "signed": signed,
    "size": size,
    "significant": significant,
    "count": count,
    "seconds": seconds,
    "times_smaller": times_smaller,
    "relative": relative,
    "interval": interval,
    "svg": Markup,
    "capitalized": capitalized,
}
