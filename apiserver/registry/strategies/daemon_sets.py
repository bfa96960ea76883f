"""Daemon sets: the deprecated template generation lives on as an annotation.

Looked up through `strategy_for`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apiserver.registry.defaults.workloads import default_daemon_set
from apiserver.registry.strategies.workload_warnings import daemon_set_warnings
from apiserver.registry.strategy import Rules, Strategy
from apiserver.registry.validation.metadata import Passes
from apiserver.registry.validation.workloads import (
    validate_daemon_set,
    validate_daemon_set_update,
    validate_workload_status,
)

if TYPE_CHECKING:
    from apiserver.registry.store import RequestContext

Obj = dict[str, Any]
TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


class DaemonSetStrategy(Strategy):
    """apps/v1 DaemonSet."""

    rules = Rules(
        generation=True,
        has_status=True,
        new_status={
            "currentNumberScheduled": 0,
            "numberMisscheduled": 0,
            "desiredNumberScheduled": 0,
            "numberReady": 0,
        },
        default=default_daemon_set,
        passes=Passes(2, 1),
        looks=2,
        validate=validate_daemon_set,
        validate_update=validate_daemon_set_update,
        validate_status=validate_workload_status,
        warnings=daemon_set_warnings,
    )

    def prepare_create(self, ctx: RequestContext, obj: Obj) -> None:
        super().prepare_create(ctx, obj)
        _annotate(obj, 1)

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        super().prepare_update(ctx, new, old)
        last = (old["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "1")
        changed = new["spec"].get("template") != old["spec"].get("template")
        _annotate(new, (int(last) if last.isdecimal() else 0) + changed)


def _annotate(obj: Obj, generation: int) -> None:
    meta = obj["metadata"]
    meta["annotations"] = {**(meta.get("annotations") or {}), TEMPLATE_GENERATION: str(generation)}
