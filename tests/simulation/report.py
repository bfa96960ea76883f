"""What the simulations came to, as the page docs/simulation.md: one table per scenario, one row per policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.simulation.run import Outcome
from tests.simulation.scenarios import BOOT, HEAL, POLICIES, SCENARIOS, TYPE, Policy, Scenario
from tests.simulation.site import JOIN, START

HEADER = (
    "policy",
    "$ a day",
    "minutes too short",
    "demand unserved",
    "shortages",
    "p50",
    "p99",
    "replicas",
    "raised",
    "lowered",
    "flaps",
    "nodes +/-",
    "interruptions",
    "pods evicted",
)
INTRO = f"""# Simulated days of traffic

Written by `python -m tests.simulation` (two minutes); the rules that every run must obey are in `tests/simulation`.

The decisions are the product's own code: the HorizontalPodAutoscaler's evaluation, arithmetic and memory
(`controller_manager/horizontal`, every 15 s), the ReplicaSet's choice of pods that go, the scheduler's framework, the
cluster autoscaler's counting and planning (`cluster_autoscaler`, every 10 s) or the node pools' solver and disruption
(`nodepool_autoscaler`), the cloud's core with its spot market and its bill (`cloud`). Simulated is what they decide
about: traffic that is shared evenly by all pods that are Ready (each requests and may use one core), metrics that are
one scrape old, machines that boot for {BOOT:g} s ({TYPE} in groups) and join in {JOIN:g} s, pods that are Ready
{START:g} s after they got a node, kubelets that are missed after 50 s, and failed machines that the cloud replaces
after {HEAL:g} s in groups, and not at all in pools. Pods have neither a disruption budget nor a topology spread
constraint: what is packed onto one machine or into one zone goes down with it. Time is counted in steps of 5 s. Every
number is the same in every run.

* **$ a day**: what all machines cost, at the spot price where they are spot machines.
* **minutes too short**: the share of minutes in which, at some moment, the demand was more than Ready pods could take:
  the service level. **demand unserved**: the share of all work that found no pod.
* **shortages**: how often that was so; **p50** and **p99**: how long until there were enough pods again.
* **replicas**: the fewest and the most. **raised**, **lowered**: by the HorizontalPodAutoscaler; **flaps**: changes
  that turned round one that was less than five minutes old.
* **nodes +/-**: machines that came and went. **pods evicted**: by removals, interruptions and failures.

## Policies
"""


def row(policy: Policy, out: Outcome) -> tuple[str, ...]:
    """One line of a table."""
    return (
        policy.name,
        f"{out.dollars_per_day:.2f}",
        f"{out.short_share:.2%}",
        f"{out.unserved:.3%}",
        str(len(out.shortages)),
        f"{out.reaction(0.5):.0f} s" if out.shortages else "-",
        f"{out.reaction(0.99):.0f} s" if out.shortages else "-",
        f"{out.least_replicas} to {out.most_replicas}",
        str(out.rises),
        str(out.falls),
        str(out.flaps),
        f"+{out.counters.nodes_added} -{out.counters.nodes_removed}",
        str(out.counters.interruptions),
        str(out.counters.evicted),
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(outcomes: Iterable[tuple[Scenario, Policy, Outcome]]) -> str:
    """The whole page."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for scenario, policy, out in outcomes:
        found.setdefault(scenario.name, []).append(row(policy, out))
    parts = [INTRO, table(("policy", "what it is"), [(each.name, each.about) for each in POLICIES])]
    for scenario in SCENARIOS:
        title = f"\n## {scenario.name.capitalize()}\n\n{scenario.about[:1].upper()}{scenario.about[1:]}.\n"
        parts += [title, table(HEADER, found[scenario.name])]
    return "\n".join(parts) + "\n"
