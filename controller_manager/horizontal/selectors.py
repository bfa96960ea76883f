"""Which autoscalers may select a pod: found by one label each, so that hundreds of them need not be asked. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from machinery.meta import ObjectKey
from machinery.selectors import LabelSelector


def one_pair(selector: LabelSelector) -> str | None:
    """A `key=value` that every pod of the selector has; None when it names none."""
    for term in selector.requirements:
        if term.operator == "In" and len(term.values) == 1:
            return f"{term.key}={next(iter(term.values))}"
    return None


class Selectors:
    """The selectors of all autoscalers' targets."""

    def __init__(self) -> None:
        self._selectors: dict[ObjectKey, LabelSelector] = {}
        self._by_pair: dict[tuple[str, str | None], set[ObjectKey]] = {}

    def put(self, key: ObjectKey, selector: LabelSelector) -> None:
        known = self._selectors.get(key)
        if known is not None:
            if known == selector:
                return
            self.forget(key)
        self._selectors[key] = selector
        self._by_pair.setdefault((key.namespace, one_pair(selector)), set()).add(key)

    def forget(self, key: ObjectKey) -> None:
        known = self._selectors.pop(key, None)
        if known is None:
            return
        place = (key.namespace, one_pair(known))
        self._by_pair[place].discard(key)
        if not self._by_pair[place]:
            del self._by_pair[place]

    def rivals(self, key: ObjectKey, pods: Iterable[Mapping[str, str]]) -> list[ObjectKey]:
        """The other autoscalers that select one of these pods, by their labels."""
        found: set[ObjectKey] = set()
        for labels in pods:
            for pair in (None, *(f"{name}={value}" for name, value in labels.items())):
                for other in self._by_pair.get((key.namespace, pair), ()):
                    if other != key and other not in found and self._selectors[other].matches(labels):
                        found.add(other)
        return sorted(found)
