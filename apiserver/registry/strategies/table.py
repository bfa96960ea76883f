"""The table from resource to strategy: regular kinds are a row of `Rules`, irregular ones a class.

Owns which kind gets which rules and nothing else. A new regular kind is one row here. Called by `strategy_for`.
"""

from typing import TYPE_CHECKING

from apiserver.registry.strategies.pods import PodStrategy
from apiserver.registry.strategy import PLAIN, Rules, Strategy

if TYPE_CHECKING:
    from api.resources import Resource

_RULES: dict[tuple[str, str], Rules] = {}
_CLASSES: dict[tuple[str, str], type[Strategy]] = {("", "pods"): PodStrategy}


def build(resource: "Resource") -> Strategy:
    """A new strategy for the resource; unknown kinds get the generic one."""
    key = (resource.group, resource.plural)
    kind = _CLASSES.get(key, Strategy)
    return kind(resource, _RULES.get(key, PLAIN if kind is Strategy else None))
