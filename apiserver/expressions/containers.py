"""Functions over lists: Kubernetes' own (sums, order, positions), and those of cel-go's `lists` and `sets`.

Elements reach these functions as plain values or as the library's; they are compared by type and value, as CEL does.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

from google.protobuf.duration_pb2 import Duration

from apiserver.expressions.numbers import Row

MAX_RANGE = 1_000_000
_KINDS = ("str", "int", "double", "bool", "list", "map")


def plain(items: Any) -> list[Any]:
    return [item.plain_value() if hasattr(item, "plain_value") else item for item in items]


def same(one: Any, other: Any) -> bool:
    """Equality as CEL has it: booleans are no numbers."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _within(item: Any, items: list[Any]) -> bool:
    return any(same(item, other) for other in items)


def _sorted(items: Any) -> bool:
    return all(before <= after for before, after in pairwise(plain(items)))


def _sum(items: Any) -> Any:
    values = plain(items)
    if not values or not isinstance(values[0], timedelta):
        return sum(values)
    made = Duration()  # the library takes durations from functions only as messages
    made.FromTimedelta(sum(values, timedelta()))
    return made


def _extreme(choose: Any, word: str) -> Any:
    def pick(items: Any) -> Any:
        values = plain(items)
        if not values:
            raise ValueError(f"{word} called on empty list")
        return choose(values)

    return pick


def _index(items: Any, wanted: Any) -> int:
    return next((index for index, item in enumerate(plain(items)) if same(item, wanted)), -1)


def _last_index(items: Any, wanted: Any) -> int:
    values = plain(items)
    return next((index for index in reversed(range(len(values))) if same(values[index], wanted)), -1)


def _text_index(text: str, part: str, start: int) -> int:
    _check_offset(text, start)
    return text.find(part, start)


def _last_text_index(text: str, part: str, start: int) -> int:
    _check_offset(text, start)
    return text.rfind(part, 0, start + len(part))


def _check_offset(text: str, start: int) -> None:
    if not 0 <= start < max(len(text), 1):
        raise ValueError(f"index out of range: {start}")


def _flattened(items: Any, depth: int = 1) -> list[Any]:
    if depth < 0:
        raise ValueError("level must be non-negative")
    found: list[Any] = []
    for item in plain(items):
        found += _flattened(item, depth - 1) if isinstance(item, list) and depth else [item]
    return found


def _slice(items: Any, start: int, end: int) -> list[Any]:
    values = plain(items)
    if start < 0 or end < 0:
        raise ValueError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise ValueError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if end > len(values):
        raise ValueError(f"cannot slice({start}, {end}), list is length {len(values)}")
    return values[start:end]


def _distinct(items: Any) -> list[Any]:
    found: list[Any] = []
    for item in plain(items):
        if not _within(item, found):
            found.append(item)
    return found


def _range(count: int) -> list[int]:
    if count > MAX_RANGE:
        raise ValueError(f"lists.range({count}) is longer than {MAX_RANGE}")
    return list(range(count))


def _contains(outer: Any, inner: Any) -> bool:
    values = plain(outer)
    return all(_within(item, values) for item in plain(inner))


def _intersects(one: Any, other: Any) -> bool:
    values = plain(one)
    return any(_within(item, values) for item in plain(other))


ROWS: tuple[Row, ...] = (
    ("isSorted", True, "list", "bool", _sorted),
    ("sum", True, "list", "dyn", _sum),
    ("min", True, "list", "dyn", _extreme(min, "min")),
    ("max", True, "list", "dyn", _extreme(max, "max")),
    # `rewriting` gives these their names: the library has them for strings alone.
    *(("k8sIndexOf", True, f"list {kind}", "int", _index) for kind in _KINDS),
    ("k8sIndexOf", True, "str str", "int", lambda text, part: text.find(part)),
    ("k8sIndexOf", True, "str str int", "int", _text_index),
    *(("k8sLastIndexOf", True, f"list {kind}", "int", _last_index) for kind in _KINDS),
    ("k8sLastIndexOf", True, "str str", "int", lambda text, part: text.rfind(part)),
    ("k8sLastIndexOf", True, "str str int", "int", _last_text_index),
    ("k8sReverse", True, "list", "list", lambda items: plain(items)[::-1]),
    ("k8sReverse", True, "str", "str", lambda text: text[::-1]),
    ("flatten", True, "list", "list", _flattened),
    ("flatten", True, "list int", "list", _flattened),
    ("slice", True, "list int int", "list", _slice),
    ("distinct", True, "list", "list", _distinct),
    ("sort", True, "list", "list", lambda items: sorted(plain(items))),
    ("lists.range", False, "int", "list", _range),
    ("sets.contains", False, "list list", "bool", _contains),
    (
        "sets.equivalent",
        False,
        "list list",
        "bool",
        lambda one, other: _contains(one, other) and _contains(other, one),
    ),
    ("sets.intersects", False, "list list", "bool", _intersects),
)
