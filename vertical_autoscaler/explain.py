"""A recommendation in words and numbers: the histograms it follows from, and who was given it or why not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from client.client import key_of
from machinery.decisions import facts, table
from machinery.meta import ObjectKey
from proto.explain.v1 import explain_pb2 as pb
from vertical_autoscaler import conflicts
from vertical_autoscaler.model import Model
from vertical_autoscaler.objects import Vpa, text
from vertical_autoscaler.updater import Outcome
from vertical_autoscaler.world import Target

USAGE = ("CONTAINER", "RESOURCE", "P50", "P90", "P95", "SAMPLES", "DAYS", "OOM KILLS")
BOUNDS = ("CONTAINER", "RESOURCE", "LOWER", "TARGET", "UPPER", "UNCAPPED", "MIN ALLOWED", "MAX ALLOWED")
PODS = ("POD", "DECISION", "WHY")
SHARES = (0.5, 0.9, 0.95)


def explained(
    vpa: Vpa, target: Target, model: Model | None, shared: Mapping[str, ObjectKey], outcomes: Sequence[Outcome]
) -> pb.Decision:
    """What to print."""
    recommended = vpa.recommended()
    name = str(key_of(vpa))
    headline = f"VPA {name} recommends nothing yet."
    if recommended:
        told = [
            f"{each} {', '.join(f'{resource} {text(resource, amount)}' for resource, amount in found.target.items())}"
            for each, found in recommended.items()
        ]
        headline = f"VPA {name} recommends {'; '.join(told)}."
    found_facts: dict[str, object] = {
        "mode": vpa.mode,
        "trouble": target.problem,
        "pods": f"those that match {target.selector}" if target.selector is not None else "",
        "conflict": conflicts.message(shared) if shared else "",
    }
    made = pb.Decision(headline=headline, facts=facts(found_facts))
    if model is not None and model.aggregates:
        made.tables.append(table("Usage", USAGE, _usage(model)))
    if recommended:
        made.tables.append(table("Recommendation", BOUNDS, _bounds(vpa)))
    if outcomes:
        made.tables.append(table("Pods", PODS, [list(each) for each in sorted(outcomes)]))
    return made


def _usage(model: Model) -> list[list[str]]:
    rows = []
    for name, found in sorted(model.aggregates.items()):
        days = f"{found.confidence():.2f}"
        cpu = [text("cpu", round(found.cpu.percentile(share) * 1000)) for share in SHARES]
        memory = [text("memory", round(found.memory.percentile(share))) for share in SHARES]
        rows.append([name, "cpu", *cpu, str(found.samples), days, ""])
        rows.append([name, "memory", *memory, "", "", str(found.ooms)])
    return rows


def _bounds(vpa: Vpa) -> list[list[str]]:
    rows = []
    for name, found in vpa.recommended().items():
        policy = vpa.policy(name)
        for resource in found.target:
            parts = (found.lower, found.target, found.upper, found.uncapped)
            low, high = policy.lowest(resource), policy.highest(resource)
            rows.append(
                [
                    name,
                    resource,
                    *(text(resource, part[resource]) if resource in part else "-" for part in parts),
                    text(resource, low) if low is not None else "-",
                    text(resource, high) if high is not None else "-",
                ]
            )
    return rows
