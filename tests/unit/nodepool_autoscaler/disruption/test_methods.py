"""Single methods and the check of their commands, with simulations that are made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from machinery.clock import VirtualClock
from nodepool_autoscaler.disruption.budgets import Allowance
from nodepool_autoscaler.disruption.candidates import Candidate
from nodepool_autoscaler.disruption.commands import Command
from nodepool_autoscaler.disruption.consolidation import Simulate, Simulation
from nodepool_autoscaler.disruption.methods import SINGLE_TIMEOUT, Emptiness, MultiNode, SingleNode
from nodepool_autoscaler.disruption.validation import still_empty, still_valid
from nodepool_autoscaler.model import NodeState, Offering, Outcome, PlannedClaim, Pool
from tests.unit.nodepool_autoscaler.scene import offering
from tests.unit.scheduler.objects import info

POOL = Pool("default")
LARGE, MIDDLE, SMALL, TINY = offering(8, 32), offering(4, 8), offering(2, 4), offering(1, 2)
Answer = Callable[[Sequence[Candidate]], Outcome]


def candidate(name: str, offer: Offering = MIDDLE, *, pods: int = 1, cost: float = 1.0, pool: Pool = POOL) -> Candidate:
    return Candidate(NodeState(name, offering=offer), pool, tuple(info(f"{name}-{n}") for n in range(pods)), cost)


def planned(*offers: Offering) -> PlannedClaim:
    return PlannedClaim(POOL, (), offers, (), {}, {})


def allowing(count: int, *pools: str) -> Allowance:
    return Allowance(dict.fromkeys(pools or ("default",), count))


class Asked:
    """A simulation: `answer` by the candidates; remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.names: list[list[str]] = []

    async def __call__(self, candidates: Sequence[Candidate]) -> Simulation | None:
        self.names.append([each.name for each in candidates])
        return Simulation(self.answer(candidates))


def up_to(count: int) -> Answer:
    """So many can go; more need two new nodes."""
    return lambda candidates: Outcome() if len(candidates) <= count else Outcome(claims=(planned(TINY), planned(TINY)))


@pytest.mark.parametrize(
    ("removable", "allowed", "expected"),
    [
        pytest.param(0, 10, 0, id="none"),
        pytest.param(1, 10, 0, id="one-is-for-another-method"),
        pytest.param(2, 10, 2, id="two"),
        pytest.param(5, 10, 5, id="five"),
        pytest.param(8, 10, 8, id="all"),
        pytest.param(8, 3, 3, id="as-the-budget-allows"),
        pytest.param(8, 1, 0, id="budget-of-one"),
        pytest.param(8, 0, 0, id="budget-of-none"),
    ],
)
async def test_as_many_as_can_go_together(removable: int, allowed: int, expected: int) -> None:
    candidates = [candidate(f"n{number}", cost=number) for number in range(8)]
    found = await MultiNode(VirtualClock()).propose(candidates, allowing(allowed), Asked(up_to(removable)))
    gone = [each.name for each in found.command.candidates] if found.command is not None else []
    assert gone == [f"n{number}" for number in range(expected)]
    assert found.constrained is (allowed < 8)


async def test_several_are_not_replaced_by_what_one_of_them_is() -> None:
    candidates = [candidate("a", LARGE), candidate("b", SMALL)]
    method = MultiNode(VirtualClock())
    kept = await method.propose(candidates, allowing(9), Asked(lambda _: Outcome(claims=(planned(SMALL, MIDDLE),))))
    assert kept.command is None
    found = await method.propose(candidates, allowing(9), Asked(lambda _: Outcome(claims=(planned(TINY, SMALL),))))
    assert found.command is not None and found.command.replacements[0].instance_types == ("m-1x2",)


async def test_single_nodes_are_tried_pool_by_pool_within_budgets() -> None:
    other = Pool("other")
    candidates = [
        candidate("a1", cost=1),
        candidate("a2", cost=2),
        candidate("b1", cost=3, pool=other),
        candidate("empty", pods=0, cost=0),
    ]
    asked = Asked(lambda _: Outcome(claims=(planned(LARGE),)))
    found = await SingleNode(VirtualClock()).propose(candidates, allowing(1, "default", "other"), asked)
    assert asked.names == [["a1"], ["b1"], ["a2"]] and found.command is None
    assert {each.message for each in found.verdicts} == {"Can't replace with a cheaper node"}
    asked = Asked(up_to(1))
    found = await SingleNode(VirtualClock()).propose(candidates, allowing(1, "other"), asked)
    assert found.command is not None and found.constrained and asked.names == [["b1"]]


async def test_pools_that_a_timeout_left_out_come_first_the_next_time() -> None:
    clock, other = VirtualClock(), Pool("other")
    candidates = [candidate("a", cost=1), candidate("b", cost=2, pool=other)]

    async def slow(chosen: Sequence[Candidate]) -> Simulation | None:
        await clock.advance(SINGLE_TIMEOUT + 1)
        return Simulation(Outcome(claims=(planned(LARGE),)))

    method = SingleNode(clock)
    assert (await method.propose(candidates, allowing(1, "default", "other"), slow)).timed_out
    asked = Asked(up_to(0))
    await method.propose(candidates, allowing(1, "default", "other"), asked)
    assert asked.names == [["b"], ["a"]]


async def test_empty_nodes_as_budgets_allow_the_least_disruptive_first() -> None:
    candidates = [candidate(name, pods=0, cost=cost) for name, cost in (("x", 3), ("y", 1), ("z", 2))]
    found = await Emptiness().propose(candidates, allowing(2), Asked(up_to(0)))
    assert found.command is not None and [each.name for each in found.command.candidates] == ["y", "z"]
    assert found.constrained


# --- the check ------------------------------------------------------------------------------------------------------

TWO = (candidate("a"), candidate("b"))
DELETE = Command("Underutilized", "multi", TWO)
REPLACE = replace(DELETE, replacements=(planned(TINY, SMALL),))
RESULTS = "scheduling simulation produced new results"


def answering(*claims: PlannedClaim) -> Simulate:
    return Asked(lambda _: Outcome(claims=claims))


@pytest.mark.parametrize(
    ("command", "now", "allowed", "simulate", "why"),
    [
        pytest.param(DELETE, TWO, 2, answering(), "", id="holds"),
        pytest.param(DELETE, TWO[:1], 2, answering(), "1 candidates are no longer valid", id="one-is-gone"),
        pytest.param(
            DELETE,
            TWO,
            1,
            answering(),
            "a candidate can no longer be disrupted without violating budgets",
            id="budget",
        ),
        pytest.param(DELETE, TWO, 2, answering(planned(TINY)), RESULTS, id="a-node-is-needed-now"),
        pytest.param(REPLACE, TWO, 2, answering(planned(TINY, SMALL, LARGE)), "", id="replacement-holds"),
        pytest.param(REPLACE, TWO, 2, answering(), RESULTS, id="no-node-is-needed-now"),
        pytest.param(REPLACE, TWO, 2, answering(planned(SMALL, LARGE)), RESULTS, id="the-cheapest-will-not-do-now"),
        pytest.param(REPLACE, TWO, 2, answering(planned(TINY, SMALL), planned(TINY)), RESULTS, id="two-are-needed"),
        pytest.param(
            REPLACE,
            (TWO[0], candidate("b", SMALL)),
            2,
            answering(planned(TINY, SMALL)),
            "the price of a candidate has fallen",
            id="cheaper-by-now",
        ),
    ],
)
async def test_whether_a_command_still_holds(
    command: Command, now: Sequence[Candidate], allowed: int, simulate: Simulate, why: str
) -> None:
    found = await still_valid(command, now, allowing(allowed), simulate)
    assert (found if isinstance(found, str) else "") == why


async def test_problems_and_deletions_end_a_command() -> None:
    async def problem(chosen: Sequence[Candidate]) -> Simulation | None:
        return Simulation(Outcome(), {"default/web": "no room"})

    async def deleting(chosen: Sequence[Candidate]) -> Simulation | None:
        return None

    told = await still_valid(DELETE, TWO, allowing(2), problem)
    assert told == "not all pods would schedule, default/web => no room"
    assert await still_valid(DELETE, TWO, allowing(2), deleting) == "a candidate is being deleted"


def test_what_is_left_of_empty_nodes() -> None:
    empty = tuple(candidate(name, pods=0) for name in "abc")
    command = Command("Empty", "empty", empty)
    found = still_empty(command, [empty[0], candidate("b"), empty[2]], allowing(5))
    assert isinstance(found, Command) and [each.name for each in found.candidates] == ["a", "c"]
    found = still_empty(command, empty, allowing(1))
    assert isinstance(found, Command) and len(found.candidates) == 1
    assert still_empty(command, [candidate("a")], allowing(5)) == "3 candidates are no longer valid"
