"""Which of several groups to raise. Each expander keeps the best of what the one before it kept; chance decides ties.

Pure: prices and the priority ConfigMap come in as they were read. The price expander compares what the new nodes would
cost per hour with what the pods' requests would cost by themselves.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import yaml

from cluster_autoscaler import node_facts as facts
from cluster_autoscaler.templates import Template
from scheduler.framework import resources
from scheduler.framework.pod_info import PodInfo

PRIORITY_CONFIG_MAP: Final = "cluster-autoscaler-priority-expander"
Priorities = Mapping[int, Sequence[re.Pattern[str]]]


@dataclass(frozen=True, slots=True)
class Option:
    """Raise `group` by `nodes`, then `pods` fit. `similar`: groups that could share the raise."""

    group: str
    nodes: int
    pods: tuple[PodInfo, ...]
    template: Template
    similar: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Knowledge:
    """`node_prices`: dollars per hour of one node by group; `pod_prices`: of one pod by uid."""

    node_prices: Mapping[str, float] = field(default_factory=dict)
    pod_prices: Mapping[str, float] = field(default_factory=dict)
    priorities: Priorities = field(default_factory=dict)


Expander = Callable[[Sequence[Option], Knowledge], list[Option]]


def waste(option: Option) -> float:
    """Shares of CPU and memory that would lie idle, added up."""
    offered = facts.allocatable(option.template.node)
    total = 0.0
    for name in (resources.CPU, resources.MEMORY):
        there = offered.get(name, 0) * option.nodes
        if there:
            total += (there - sum(info.requests.get(name, 0) for info in option.pods)) / there
    return total


def _least(options: Sequence[Option], cost: Callable[[Option], float]) -> list[Option]:
    costs = [cost(option) for option in options]
    best = min(costs)
    return [option for option, each in zip(options, costs, strict=True) if each == best]


def least_waste(options: Sequence[Option], _: Knowledge) -> list[Option]:
    return _least(options, waste)


def most_pods(options: Sequence[Option], _: Knowledge) -> list[Option]:
    return _least(options, lambda option: -len(option.pods))


def price(options: Sequence[Option], known: Knowledge) -> list[Option]:
    """Groups without a price cannot be compared; when none has one, all stay."""
    priced = [option for option in options if option.group in known.node_prices]

    def cost(option: Option) -> float:
        pods = sum(known.pod_prices.get(info.uid, 0.0) for info in option.pods)
        return known.node_prices[option.group] * option.nodes / (pods or len(option.pods))

    return _least(priced, cost) if priced else list(options)


def priority(options: Sequence[Option], known: Knowledge) -> list[Option]:
    """The groups of the highest priority that any matches; without a match, all stay."""
    best: list[Option] = []
    highest: int | None = None
    for rank, patterns in known.priorities.items():
        hit = [option for option in options if any(pattern.search(option.group) for pattern in patterns)]
        if hit and (highest is None or rank > highest):
            highest, best = rank, hit
    return best or list(options)


def at_random(options: Sequence[Option], _: Knowledge) -> list[Option]:
    return list(options)


EXPANDERS: Final[Mapping[str, Expander]] = {
    "random": at_random,
    "most-pods": most_pods,
    "least-waste": least_waste,
    "price": price,
    "priority": priority,
}


def best(options: Sequence[Option], chain: Sequence[str], known: Knowledge, rng: random.Random) -> Option | None:
    """One of the options; None when there are none. An expander elsewhere is not asked here (`choosing`)."""
    left = list(options)
    for name in chain:
        if len(left) > 1 and name in EXPANDERS:
            left = EXPANDERS[name](left, known)
    return rng.choice(left) if left else None


def parse_priorities(text: str) -> Priorities:
    """`priorities` of the ConfigMap: a YAML map from number to regular expressions. Raises ValueError."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"priorities are no YAML: {error}") from error
    if not isinstance(found, dict) or not found:
        raise ValueError("priorities must be a map from a number to a list of regular expressions")
    made: dict[int, list[re.Pattern[str]]] = {}
    for rank, patterns in found.items():
        if not isinstance(rank, int) or not isinstance(patterns, list):
            raise ValueError("priorities must be a map from a number to a list of regular expressions")
        try:
            made[rank] = [re.compile(str(pattern)) for pattern in patterns]
        except re.error as error:
            raise ValueError(f"priority {rank}: {error}") from error
    return made
