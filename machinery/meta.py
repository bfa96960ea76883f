"""Small facts of object metadata: keys and time texts (metav1.Time and MicroTime)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple


class ObjectKey(NamedTuple):
    """`namespace/name`, or `name` alone for cluster-scoped objects (namespace is then "")."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @classmethod
    def parse(cls, text: str) -> ObjectKey:
        """Inverse of `str()`."""
        namespace, slash, name = text.partition("/")
        return cls(namespace, name) if slash else cls("", namespace)


def rfc3339(moment: datetime) -> str:
    """metav1.Time: whole seconds, UTC, `2026-01-01T00:00:00Z`."""
    return moment.astimezone(UTC).isoformat()[:19] + "Z"


def rfc3339_micro(moment: datetime) -> str:
    """metav1.MicroTime: always six fractional digits."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d\d):(\d\d))$", re.ASCII)


def parse_time(text: str) -> datetime:
    """An RFC 3339 instant as aware UTC (nanoseconds are cut to microseconds). Raises ValueError."""
    match = _TIME.match(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    day, clock, fraction, _, sign, hours, minutes = match.groups()
    moment = datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    if fraction:
        moment = moment.replace(microsecond=int(fraction[:6].ljust(6, "0")))
    if sign:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        moment = moment - offset if sign == "+" else moment + offset
    return moment
