"""Evictions from several sides at once against one PodDisruptionBudget: the API server spends, the controller counts.

The documented promise: evictions never leave fewer than the demanded healthy pods, whatever else fails beside them; a
budget is never spent twice, and what was promised to an eviction that never deleted its pod comes back.
"""
# mypy: disable-error-code="union-attr, operator"

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from api.models import core_v1, policy_v1
from apiserver.registry.eviction import needs_no_budget, needs_no_disruption, plan_disruption
from controller_manager.disruption.plan import (
    DELETION_TIMEOUT,
    count_healthy,
    plan_disruptions,
    plan_expectation,
    status_of,
)
from controller_manager.objects import is_ready, is_terminating
from machinery.clock import VirtualClock
from machinery.errors import TooManyRequests
from machinery.meta import rfc3339
from tests.unit.controller_manager.builders import at, pod
from tests.unit.controller_manager.test_disruption_plan import budget

DEMANDS = st.sampled_from(
    [
        {"minAvailable": 2},
        {"minAvailable": "50%"},
        {"maxUnavailable": 1},
        {"maxUnavailable": "30%"},
        {"minAvailable": 9},
    ]
)


class Budget(RuleBasedStateMachine):
    """Pods of one ReplicaSet; evictions act on what the API server has, the controller on a cache that may lag."""

    @initialize(demand=DEMANDS, always=st.booleans())
    def begin(self, demand: dict[str, Any], always: bool) -> None:
        self.seconds = 0
        self.replicas = 6
        self.policy = "AlwaysAllow" if always else "IfHealthyBudget"
        self.demand = demand
        self.generation = 2
        self.pods = {f"p{n}": pod(f"p{n}", ready=True, phase="Running", owner="uid-rs") for n in range(6)}
        self.made = len(self.pods)
        self.stored = self.budget({})
        self.cached = msgspec.convert(msgspec.to_builtins(self.stored), policy_v1.PodDisruptionBudget)
        self.cached_pods = dict(self.pods)
        self.version = self.cached_version = 0
        self.going: dict[str, int] = {}  # pods that evictions have paid for and will delete, by when they paid
        self.reconcile()

    def budget(self, status: dict[str, Any]) -> policy_v1.PodDisruptionBudget:
        made = budget(**self.demand, unhealthyPodEvictionPolicy=self.policy)
        made.metadata.generation = self.generation
        made.status = msgspec.convert(status, policy_v1.PodDisruptionBudgetStatus)
        return made

    @property
    def clock(self) -> VirtualClock:
        return VirtualClock(at(self.seconds))

    def healthy(self) -> set[str]:
        return {name for name, each in self.pods.items() if is_ready(each) and not is_terminating(each)}

    @rule()
    def caches_catch_up(self) -> None:
        self.cached, self.cached_version = self.stored, self.version
        self.cached_pods = dict(self.pods)

    @rule()
    def pods_show_first(self) -> None:
        """The two watches are not in step: pods are newer than the budget."""
        self.cached_pods = dict(self.pods)

    def count(self) -> policy_v1.PodDisruptionBudgetStatus:
        pods = list(self.cached_pods.values())
        disruptions = plan_disruptions(self.cached, pods, self.clock)
        expectation = plan_expectation(self.cached, pods, lambda _: ("uid-rs", self.replicas))
        healthy = count_healthy(pods, disruptions.pending)
        return status_of(self.cached, expectation, healthy, disruptions.pending, self.clock)

    @rule()
    def count_and_write(self) -> None:
        """One pass of the controller; its write is refused if the budget has moved on since it was read."""
        status = self.count()
        if self.cached_version == self.version:
            self.stored = self.budget(msgspec.to_builtins(status))
            self.version += 1

    def reconcile(self) -> None:
        self.caches_catch_up()
        self.count_and_write()

    @rule(which=st.integers(0, 9), how=st.sampled_from(["at once", "later", "never"]))
    def evict(self, which: int, how: str) -> None:
        """An eviction as the API server does it: it spends, then deletes, unless it dies in between."""
        if not self.pods:
            return
        name = sorted(self.pods)[which % len(self.pods)]
        asked: dict[str, Any] = msgspec.to_builtins(self.pods[name])
        before, was_healthy = len(self.healthy() - self.going.keys()), name in self.healthy() - self.going.keys()
        demanded = plan_expectation(self.stored, list(self.pods.values()), lambda _: ("uid-rs", self.replicas)).desired
        if not needs_no_budget(asked):
            stored: dict[str, Any] = msgspec.to_builtins(self.stored)
            if not needs_no_disruption(asked, stored):
                try:
                    changed = plan_disruption(stored, name, rfc3339(self.clock.now()))
                except TooManyRequests:
                    return
                self.stored = self.budget(changed)
                self.version += 1
        if how == "never":
            return
        if was_healthy:
            assert before - 1 >= demanded, "an eviction takes no pod that the budget needs"
        if how == "at once" or not was_healthy:  # a pod that costs nothing is deleted before it can become ready
            self.delete(name)
        else:
            self.going[name] = self.seconds

    @rule(which=st.integers(0, 9))
    def an_eviction_goes_on(self, which: int) -> None:
        if self.going:
            self.delete(sorted(self.going)[which % len(self.going)])

    def delete(self, name: str) -> None:
        self.going.pop(name, None)
        if name in self.pods:
            self.pods[name] = self.changed(name, deletionTimestamp=at(self.seconds))

    def changed(self, name: str, *, ready: bool | None = None, **meta: Any) -> core_v1.Pod:
        old = self.pods[name]
        made = pod(name, ready=is_ready(old) if ready is None else ready, phase="Running", owner="uid-rs")
        made.metadata.deletionTimestamp = meta.get("deletionTimestamp", old.metadata.deletionTimestamp)
        return made

    @rule(which=st.integers(0, 9))
    def a_pod_fails(self, which: int) -> None:
        """Failures are nobody's decision; the controller counts them before the next eviction is asked for."""
        if self.pods:
            name = sorted(self.pods)[which % len(self.pods)]
            self.pods[name] = self.changed(name, ready=False)
            self.reconcile()

    @rule()
    def pods_become_ready(self) -> None:
        for name in self.pods:
            if not is_terminating(self.pods[name]):
                self.pods[name] = self.changed(name, ready=True)

    @rule()
    def terminating_pods_are_replaced(self) -> None:
        for name in [name for name, each in self.pods.items() if is_terminating(each)]:
            del self.pods[name]
        while len(self.pods) < self.replicas:
            self.pods[f"p{self.made}"] = pod(f"p{self.made}", ready=False, phase="Running", owner="uid-rs")
            self.made += 1

    @rule(seconds=st.sampled_from([1, 60, 121]))
    def time_passes(self, seconds: int) -> None:
        """An eviction that has not deleted its pod in two minutes is taken never to do so."""
        self.seconds += seconds
        self.going = {name: since for name, since in self.going.items() if self.seconds - since < DELETION_TIMEOUT}

    @precondition(lambda self: hasattr(self, "demand"))
    @rule(demand=DEMANDS)
    def change_the_demand(self, demand: dict[str, Any]) -> None:
        """Until the controller has seen the new demand, evictions are refused."""
        self.demand, self.generation = demand, self.generation + 1
        self.stored = self.budget(msgspec.to_builtins(self.stored.status))
        self.version += 1

    @invariant()
    def the_budget_is_honest(self) -> None:
        if not hasattr(self, "stored"):
            return
        status = self.stored.status
        assert status.disruptionsAllowed >= 0
        if (status.observedGeneration or 0) == self.generation:
            spendable = len(self.healthy() - self.going.keys()) - status.desiredHealthy
            assert status.disruptionsAllowed <= max(0, spendable), "no more is allowed than could go now"

    def teardown(self) -> None:
        if not hasattr(self, "stored"):
            return
        self.time_passes(121)
        for _ in range(3):
            self.terminating_pods_are_replaced()
            self.pods_become_ready()
            self.reconcile()
        status = self.stored.status
        assert not status.disruptedPods, "what was promised in vain comes back"
        assert (status.currentHealthy, status.expectedPods) == (6, 6)
        assert status.disruptionsAllowed == max(0, 6 - status.desiredHealthy)


TestBudget = Budget.TestCase
TestBudget.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
