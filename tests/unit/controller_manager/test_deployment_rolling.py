from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller_manager.deployment.rolling import (
    Limits,
    SetSize,
    new_set_replicas,
    plan_rolling,
    plan_scale,
    resolve_fenceposts,
)
from tests.unit.controller_manager.builders import at


def size(name: str, replicas: int, available: int | None = None, created: float = 0, **fields: int) -> SetSize:
    return SetSize(name, replicas, replicas if available is None else available, at(created), **fields)


@pytest.mark.parametrize(
    ("surge", "unavailable", "desired", "expected"),
    [
        pytest.param("25%", "25%", 4, (1, 1), id="quarters"),
        pytest.param("25%", "25%", 2, (1, 0), id="surge rounds up, unavailable down"),
        pytest.param("25%", "25%", 10, (3, 2), id="ten"),
        pytest.param(0, 0, 3, (0, 1), id="never both zero"),
        pytest.param("0%", "10%", 3, (0, 1), id="both round to zero"),
        pytest.param(2, 5, 3, (2, 3), id="unavailable at most all"),
        pytest.param("100%", 0, 3, (3, 0), id="all"),
        pytest.param(None, None, 3, (0, 1), id="unset"),
    ],
)
def test_fenceposts(surge: int | str, unavailable: int | str, desired: int, expected: tuple[int, int]) -> None:
    assert resolve_fenceposts(surge, unavailable, desired) == expected


@pytest.mark.parametrize(
    ("limits", "new", "old", "expected"),
    [
        pytest.param(Limits(10, 3, 2), size("n", 0), [size("o", 10)], {"n": 3}, id="surge first"),
        pytest.param(Limits(10, 3, 2), size("n", 3, 0), [size("o", 10)], {"o": 8}, id="then shrink old"),
        pytest.param(Limits(10, 3, 2), size("n", 3, 0), [size("o", 8)], {"n": 5}, id="grow into the room"),
        pytest.param(Limits(10, 3, 2), size("n", 5, 0), [size("o", 8)], {}, id="stuck: new is not available"),
        pytest.param(Limits(10, 3, 2), size("n", 5, 0), [size("o", 8, 7)], {}, id="stuck and an old one fails too"),
        pytest.param(Limits(10, 3, 2), size("n", 5, 2), [size("o", 8)], {"o": 6}, id="new ones available"),
        pytest.param(Limits(10, 3, 2), size("n", 10), [size("o", 3)], {"o": 0}, id="last old ones"),
        pytest.param(Limits(10, 3, 2), size("n", 10), [], {}, id="finished"),
        pytest.param(Limits(10, 3, 2), size("n", 12), [], {"n": 10}, id="new is too large"),
        pytest.param(
            Limits(4, 1, 0), size("n", 1, 1), [size("a", 2, 2, 0), size("b", 2, 1, 1)], {"b": 1}, id="one too many"
        ),
        pytest.param(
            Limits(4, 0, 1),
            size("n", 1, 0),
            [size("a", 2, 1, 0), size("b", 2, 2, 1)],
            {"a": 1},
            id="unhealthy old ones go first",
        ),
    ],
)
def test_plan_rolling(limits: Limits, new: SetSize, old: list[SetSize], expected: dict[str, int]) -> None:
    assert plan_rolling(limits, new, old) == expected


@pytest.mark.parametrize(
    ("limits", "rolling", "total", "current", "expected"),
    [
        pytest.param(Limits(5, 2), True, 5, 0, 2, id="surge"),
        pytest.param(Limits(5, 2), True, 7, 0, 0, id="no room"),
        pytest.param(Limits(5, 2), True, 0, 0, 5, id="fresh"),
        pytest.param(Limits(5), False, 9, 0, 5, id="recreate"),
    ],
)
def test_new_set_replicas(limits: Limits, rolling: bool, total: int, current: int, expected: int) -> None:
    assert new_set_replicas(limits, rolling, total, current) == expected


@pytest.mark.parametrize(
    ("limits", "new", "old", "expected"),
    [
        pytest.param(Limits(5), size("n", 3), [size("o", 0)], {"n": 5}, id="only one active"),
        pytest.param(Limits(5), None, [size("o", 3)], {"o": 5}, id="paused before a new set"),
        pytest.param(Limits(5), size("n", 0), [size("o", 0, created=-1)], {"n": 5}, id="none active: the new one"),
        pytest.param(
            Limits(5, 1), size("n", 5, annotated_desired=5), [size("o", 2)], {"o": 0}, id="saturated: old ones go"
        ),
        pytest.param(
            Limits(20, 5),
            size("n", 5, annotated_max=13),
            [size("o", 8, annotated_max=13)],
            {"o": 15, "n": 10},
            id="up in proportion",
        ),
        pytest.param(
            Limits(5, 1),
            size("n", 4, annotated_max=12, created=1),
            [size("o", 8, annotated_max=12)],
            {"o": 4, "n": 2},
            id="down in proportion",
        ),
        pytest.param(Limits(0, 1), size("n", 4), [size("o", 8)], {"o": 0, "n": 0}, id="to zero"),
    ],
)
def test_plan_scale(limits: Limits, new: SetSize | None, old: list[SetSize], expected: dict[str, int]) -> None:
    assert plan_scale(limits, True, new, old) == expected


@given(
    st.integers(0, 40),
    st.integers(0, 10),
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 40)), min_size=2, max_size=5),
)
def test_proportional_scaling_lands_exactly(desired: int, surge: int, sizes: list[tuple[int, int]]) -> None:
    sets = [size(f"s{i}", count, 0, i, annotated_max=top) for i, (count, top) in enumerate(sizes)]
    targets = plan_scale(Limits(desired, surge), True, sets[-1], sets[:-1])
    total = sum(targets.get(each.name, each.replicas) for each in sets)
    assert total == (desired + surge if desired else 0)
    assert all(target >= 0 for target in targets.values())


class Cluster:
    """Sets whose pods become available, fail and are replaced as a schedule says; replicas follow spec at once."""

    def __init__(self, desired: int, old: list[int]) -> None:
        self.replicas = {f"o{i}": count for i, count in enumerate(old)} | {"n": 0}
        self.available = dict(self.replicas)
        self.desired = desired

    def view(self, name: str) -> SetSize:
        order = list(self.replicas).index(name)
        return SetSize(name, self.replicas[name], min(self.available[name], self.replicas[name]), at(order))

    def apply(self, targets: dict[str, int]) -> None:
        for name, count in targets.items():
            removed = self.replicas[name] - count
            unavailable = self.replicas[name] - self.available[name]
            # The ReplicaSet controller deletes unavailable pods first.
            self.available[name] -= max(0, removed - unavailable) if removed > 0 else 0
            self.replicas[name] = count


@settings(max_examples=300)
@given(
    desired=st.integers(1, 12),
    surge=st.integers(0, 4),
    unavailable=st.integers(0, 4),
    parts=st.integers(1, 3),
    script=st.lists(st.tuples(st.sampled_from(["up", "fail", "old-up"]), st.integers(0, 3)), max_size=60),
)
def test_a_rolling_update_keeps_its_promises(
    desired: int, surge: int, unavailable: int, parts: int, script: list[tuple[str, int]]
) -> None:
    surge, unavailable = resolve_fenceposts(surge, unavailable, desired)
    limits = Limits(desired, surge, unavailable)
    share, rest = divmod(desired, parts)
    cluster = Cluster(desired, [share + (1 if i < rest else 0) for i in range(parts)])

    def step() -> dict[str, int]:
        new = cluster.view("n")
        old = [cluster.view(name) for name in cluster.replicas if name != "n"]
        before = sum(cluster.available.values())
        targets = plan_rolling(limits, new, old)
        cluster.apply(targets)
        assert sum(cluster.replicas.values()) <= desired + surge, "never more than desired + maxSurge"
        after = sum(cluster.available.values())
        assert after >= min(before, desired - unavailable), "the controller never takes availability below the minimum"
        return targets

    for what, which in script:
        step()
        name = "n" if what != "old-up" else f"o{which % parts}"
        if what == "fail":
            name = list(cluster.available)[which % len(cluster.available)]
            cluster.available[name] = max(0, cluster.available[name] - 1)
        else:
            cluster.available[name] = min(cluster.replicas[name], cluster.available[name] + 1)
    # With everything healthy the rollout always finishes.
    for _ in range(10 * (desired + surge + 2)):
        if not step() and cluster.available["n"] == desired:
            break
        cluster.available["n"] = cluster.replicas["n"]
    assert cluster.replicas == {name: desired if name == "n" else 0 for name in cluster.replicas}
