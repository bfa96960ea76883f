"""How long ago, in the fewest useful units: the text of AGE columns and of ``(5s ago)``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from machinery.meta import parse_time

UNKNOWN = "<unknown>"


def human_duration(seconds: float) -> str:
    """`5s`, `2m3s`, `3h5m`, `4d2h`, `1y30d`; clocks may disagree by less than two seconds, more is `<invalid>`."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 120:
        return f"{max(whole, 0)}s"
    minutes, hours = whole // 60, whole // 3600
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return _two(hours // 24, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{hours // 24}d"
    if hours < 24 * 365 * 8:
        return _two(hours // 24 // 365, "y", hours // 24 % 365, "d")
    return f"{hours // 24 // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def moment(text: Any) -> datetime | None:
    """A timestamp of an object; None for absent or unreadable ones."""
    if not isinstance(text, str) or not text:
        return None
    try:
        return parse_time(text)
    except ValueError:
        return None


def since(text: Any, now: datetime) -> str:
    """Time since a timestamp of an object; `<unknown>` without one."""
    then = moment(text)
    return UNKNOWN if then is None else human_duration((now - then).total_seconds())


def age(obj: Any, now: datetime) -> str:
    """Time since the object's creation."""
    metadata = obj.get("metadata")
    return since(metadata.get("creationTimestamp") if isinstance(metadata, dict) else None, now)
