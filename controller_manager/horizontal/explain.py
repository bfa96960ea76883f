"""A decision of the autoscaler in words and numbers: how each metric was judged, and what held the size back. Pure."""

from __future__ import annotations

from controller_manager.horizontal.behavior import AT_LEAST
from controller_manager.horizontal.controller import Decision
from controller_manager.horizontal.evaluation import Outcome
from controller_manager.horizontal.memory import Limits, policies
from machinery import quantity
from machinery.decisions import facts, table
from proto.explain.v1 import explain_pb2 as pb

HEADER = ("METRIC", "CURRENT", "TARGET", "RATIO", "READY", "UNREADY", "MISSING", "IGNORED", "WANTS")


def explained(name: str, decision: Decision) -> pb.Decision:
    """What to print."""
    if decision.final != decision.current:
        headline = f"HPA {name} changed its target from {decision.current} to {decision.final}: {decision.reason}."
    else:
        headline = f"HPA {name} left its target at {decision.current}."
    told: dict[str, object] = {}
    found = decision.evaluation
    if found is not None:
        told["trouble"] = found.error
        told["metrics want"] = decision.wanted
        told["decided by"] = found.metric
    verdict = decision.verdict
    if verdict is not None:
        told["stabilized to"] = f"{verdict.stabilized} ({verdict.able[1]})"
        told["limited to"] = (
            f"{verdict.replicas} ({verdict.limited[0]}: {verdict.limited[1]})" if verdict.is_limited else ""
        )
    told["replicas between"] = f"{decision.bounds[0]} and {decision.bounds[1]}" if decision.bounds[1] else ""
    if decision.tolerance is not None:
        told["tolerance"] = (
            f"ratios from {1 - decision.tolerance.down:g} to {1 + decision.tolerance.up:g} change nothing"
        )
    if decision.limits is not None:
        told |= _remembered(decision.limits)
    made = pb.Decision(headline=headline, time=decision.at, facts=facts(told))
    if found is not None and found.outcomes:
        made.tables.append(table("", HEADER, [_row(each) for each in found.outcomes]))
    return made


def _remembered(limits: Limits) -> dict[str, object]:
    """The windows with what was recommended in them, and the policies of either direction."""
    told: dict[str, object] = {}
    for way, window, word, choose in (
        ("up", limits.windows[0], "lowest", min),
        ("down", limits.windows[1], "highest", max),
    ):
        inside = [replicas for replicas, age in limits.recent if age < window]
        if window:
            found = (
                f"{choose(inside)} is the {word} of {len(inside)} recommendations" if inside else "no recommendations"
            )
            told[f"{way}scale window"] = f"{window:g} s: {found}"
    if limits.rules is None:
        told["upscale policy"] = f"at most the double, or {AT_LEAST}"
    else:
        for way, rules in zip(("up", "down"), limits.rules, strict=True):
            told[f"{way}scale policies"] = f"{rules.select} of {policies(rules.policies)}"
    return told


def _row(outcome: Outcome) -> list[str]:
    proposal = outcome.proposal
    if proposal is None:
        return [outcome.name, "unknown", *["-"] * 6, outcome.failure.text if outcome.failure is not None else "-"]
    current = f"{proposal.utilization}%" if proposal.utilization is not None else ""
    if proposal.usage is not None:
        amount = quantity.canonical(f"{proposal.usage}m")
        current = f"{current} ({amount})" if current else amount
    return [
        outcome.name,
        current,
        outcome.target,
        f"{proposal.ratio:.3g}",
        str(proposal.ready),
        _pods(proposal.unready),
        _pods(proposal.missing),
        _pods(proposal.ignored),
        str(proposal.replicas),
    ]


def _pods(names: tuple[str, ...]) -> str:
    return str(len(names)) if names else "-"
