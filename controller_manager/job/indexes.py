"""Sets of completion indexes as the status and the success policy write them: "0,2-5", ascending.

Pure. Text that cannot be read counts as empty: it was written past the validation, and the pods tell the truth.
"""

from __future__ import annotations

from collections.abc import Iterable


def parse(text: str | None) -> frozenset[int]:
    """The indexes in the text."""
    found: set[int] = set()
    for part in (text or "").split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            continue
        found.update(range(int(first), int(last if dash else first) + 1))
    return frozenset(found)


def render(indexes: Iterable[int]) -> str:
    """The text; a series of three or more is shortened to its ends."""
    parts: list[str] = []
    series: list[int] = []

    def close() -> None:
        if len(series) > 2:
            parts.append(f"{series[0]}-{series[-1]}")
        else:
            parts.extend(map(str, series))

    for index in sorted(indexes):
        if series and index != series[-1] + 1:
            close()
            series.clear()
        series.append(index)
    close()
    return ",".join(parts)
