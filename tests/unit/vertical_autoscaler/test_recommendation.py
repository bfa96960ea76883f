"""Histograms, peaks and recommendations: documented numbers, and what must hold for any usage."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import meta_v1
from machinery.clock import RealClock, VirtualClock
from vertical_autoscaler.estimation import MOST, allowed, estimate
from vertical_autoscaler.histogram import CPU, HALF_LIFE, MEMORY, Histogram
from vertical_autoscaler.model import Model, Timeline, Usage
from vertical_autoscaler.objects import ContainerPolicy, ResourcePolicy, Spec, Vpa
from vertical_autoscaler.usage import DAY, OOM_AT_LEAST, Aggregate, Container

MI = 2**20
CORES = st.floats(0.0, 64.0)
BYTES = st.integers(0, 2**40)


def test_buckets_grow_by_five_percent_over_the_documented_range() -> None:
    assert (CPU.find(0.0099), CPU.find(0.01), CPU.find(5000.0)) == (0, 1, CPU.number - 1)
    assert CPU.start(CPU.number - 1) >= 1000.0 > CPU.start(CPU.number - 2)
    assert MEMORY.start(MEMORY.number - 1) >= 1e12 > MEMORY.start(MEMORY.number - 2)
    assert (CPU.start(3) - CPU.start(2)) / (CPU.start(2) - CPU.start(1)) == pytest.approx(1.05)


@given(st.floats(0.01, 900.0))
def test_a_percentile_is_the_end_of_a_bucket(value: float) -> None:
    made = Histogram(CPU)
    made.add(value, 1.0, 0.0)
    assert value <= made.percentile(0.9) <= value * 1.05 + 0.0101


def test_percentiles_are_weighted() -> None:
    made = Histogram(CPU)
    made.add(1.0, 8.9, 0.0)
    made.add(4.0, 1.1, 0.0)
    assert made.percentile(0.5) == made.percentile(0.88) == pytest.approx(1.0, rel=0.06)
    assert made.percentile(0.9) == made.percentile(1.0) == pytest.approx(4.0, rel=0.06)
    assert Histogram(CPU).percentile(0.9) == 0.0


def test_a_sample_loses_half_of_its_weight_each_half_life() -> None:
    made = Histogram(CPU)
    made.add(4.0, 1.0, 0.0)
    made.add(1.0, 0.49, HALF_LIFE)  # the older one weighs 0.5 by now
    assert made.percentile(0.5) == pytest.approx(4.0, rel=0.06)
    made.add(1.0, 0.02, HALF_LIFE)
    assert made.percentile(0.5) == pytest.approx(1.0, rel=0.06)


def test_years_do_not_overflow() -> None:
    made = Histogram(CPU)
    for year in range(30):
        made.add(1.0 + year, 1.0, year * 365 * DAY)
    assert made.percentile(0.5) == pytest.approx(30.0, rel=0.06)


@given(st.lists(st.tuples(st.floats(0.001, 100), st.floats(0.1, 10), st.floats(0, 20 * DAY)), min_size=1, max_size=30))
def test_what_is_added_can_be_subtracted(samples: list[tuple[float, float, float]]) -> None:
    made = Histogram(CPU)
    for value, weight, at in samples:
        made.add(value, weight, at)
    for value, weight, at in samples:
        made.subtract(value, weight, at)
    assert made.empty
    assert made.percentile(0.9) == 0.0


@given(st.lists(st.tuples(CORES, st.floats(0, 5 * DAY)), min_size=1, max_size=40))
def test_a_checkpoint_keeps_percentiles(samples: list[tuple[float, float]]) -> None:
    made = Histogram(CPU)
    for value, at in samples:
        made.add(value, 1.0, at)
    again = Histogram(CPU)
    again.load(*made.saved())
    for share in (0.45, 0.95):  # whole weights may move what lies on an edge by a bucket, not more
        assert again.percentile(share + 0.02) >= made.percentile(share) >= again.percentile(share - 0.02)


@pytest.mark.parametrize(
    ("weights", "total"),
    [
        ({"9999": 1}, 1.0),
        ({"-1": 1}, 1.0),
        ({"1": -1}, 1.0),
        ({"1": "2"}, 1.0),
        ({"1": 1}, -1.0),
        ({"1": 1}, float("nan")),
    ],
)
def test_odd_checkpoints_are_refused(weights: dict[str, object], total: float) -> None:
    with pytest.raises(ValueError, match=r"bucket|weight"):
        Histogram(CPU).load(weights, total, 0.0)


def test_memory_counts_by_its_peak_per_day() -> None:
    into, container = Aggregate(), Container()
    for minute, amount in enumerate((100 * MI, 300 * MI, 200 * MI, 250 * MI)):
        container.use_memory(into, amount, minute * 60.0)
    assert into.memory.total == pytest.approx(into.memory._factor(DAY))
    assert into.memory.percentile(0.01) == into.memory.percentile(1.0) == pytest.approx(300 * MI, rel=0.06)
    container.use_memory(into, 50 * MI, DAY + 1)
    assert into.memory.percentile(0.5) == pytest.approx(50 * MI, rel=0.3)  # the younger of two peaks weighs more
    assert not container.use_memory(into, 900 * MI, 5.0)  # older than the last


@pytest.mark.parametrize(
    ("requested", "peak", "wanted"),
    [(0, 200 * MI, 200 * MI + OOM_AT_LEAST), (1000 * MI, 200 * MI, 1200 * MI), (100 * MI, 0, 200 * MI)],
)
def test_a_kill_raises_what_was_used(requested: int, peak: int, wanted: int) -> None:
    into, container = Aggregate(), Container()
    container.use_memory(into, peak, 0.0)
    assert container.ran_out(into, requested, 60.0)
    assert into.memory.percentile(1.0) == pytest.approx(wanted, rel=0.06)
    assert not container.ran_out(into, requested, 60.0)  # the same kill, seen again
    assert container.ran_out(into, requested, 120.0)
    assert into.memory.percentile(1.0) == pytest.approx(wanted, rel=0.06)  # kills do not build on each other


def history(days: float, cores: float = 1.0, memory: float = 1000 * MI) -> Aggregate:
    """A sample each minute."""
    into, container = Aggregate(), Container()
    for minute in range(int(days * 1440) + 1):
        container.use_cpu(into, cores, 0.1, minute * 60.0)
        container.use_memory(into, memory, minute * 60.0)
    return into


@pytest.mark.parametrize(("days", "upper", "lower"), [(0.5, 3.0, 0.996), (1.0, 2.0, 0.998), (7.0, 8 / 7, 0.9997)])
def test_bounds_close_in_with_history(days: float, upper: float, lower: float) -> None:
    found = estimate(history(days), 1)
    assert found.target["cpu"] == pytest.approx(1.15 * 1000, rel=0.06)
    assert found.upper["cpu"] / found.target["cpu"] == pytest.approx(upper, rel=0.01)
    assert found.lower["cpu"] / found.target["cpu"] == pytest.approx(lower, rel=0.01)


def test_without_history_the_bounds_say_nothing() -> None:
    found = estimate(history(0.0), 1)
    assert found.upper == {"cpu": MOST, "memory": MOST}
    assert found.lower == {"cpu": 25, "memory": 250 * MI}


def test_the_minimum_of_a_pod_is_shared() -> None:
    found = estimate(history(0.01, 0.0, 0.0), 2)
    assert found.target == {"cpu": 12, "memory": 125 * MI}


@given(st.lists(CORES, min_size=1, max_size=20), st.floats(1.0, 5.0))
def test_more_usage_never_recommends_less(usage: list[float], factor: float) -> None:
    def of(values: list[float]) -> int:
        into, container = Aggregate(), Container()
        for minute, value in enumerate(values):
            container.use_cpu(into, value, 0.1, minute * 60.0)
        return estimate(into, 1).target["cpu"]

    assert of([value * factor for value in usage]) >= of(usage)


@given(st.lists(st.tuples(CORES, BYTES), min_size=1, max_size=20), st.integers(1, 5), st.floats(0, 10))
def test_bounds_are_in_order(usage: list[tuple[float, int]], containers: int, days: float) -> None:
    into, container = Aggregate(), Container()
    for number, (cores, memory) in enumerate(usage):
        container.use_cpu(into, cores, 0.1, number * days * DAY)
        container.use_memory(into, memory, number * days * DAY)
    found = estimate(into, containers)
    for name in ("cpu", "memory"):
        assert found.lower[name] <= found.target[name] <= found.upper[name]


@given(st.integers(0, MOST), st.integers(1, 10**6), st.integers(0, 10**6))
def test_policies_hold(amount: int, low: int, more: int) -> None:
    policy = ContainerPolicy("*", minAllowed={"cpu": f"{low}m"}, maxAllowed={"cpu": f"{low + more}m"})
    assert low <= allowed({"cpu": amount}, policy)["cpu"] <= low + more


def autoscaler(*policies: ContainerPolicy) -> Vpa:
    return Vpa(meta_v1.ObjectMeta(name="web", namespace="default"), Spec(resourcePolicy=ResourcePolicy(list(policies))))


def test_days_of_a_service() -> None:
    """Nights at 0.1 and days at 2 cores for a week: the days count. Then it idles, and half-lives later it is small."""
    model = Model()
    for minute in range(0, 7 * 1440, 5):
        busy = (minute // 60) % 24 >= 12
        model.use(Usage("web-1", "main", 2.0 if busy else 0.1, 500 * MI, 0.5, minute * 60.0))
    (found,) = model.recommend(autoscaler(), ["main"])
    assert found.target["cpu"] == pytest.approx(2300, rel=0.06)
    assert found.target["memory"] == pytest.approx(575 * MI, rel=0.06)
    for minute in range(7 * 1440, 14 * 1440, 5):
        model.use(Usage("web-1", "main", 0.1, 500 * MI, 0.5, minute * 60.0))
    (later,) = model.recommend(autoscaler(), ["main"])
    assert later.target["cpu"] < 130


def test_a_policy_takes_containers_and_resources_away() -> None:
    model = Model()
    for name in ("main", "sidecar"):
        model.use(Usage("web-1", name, 1.0, 500 * MI, 0.5, 0.0))
    policies = ContainerPolicy("sidecar", mode="Off"), ContainerPolicy("*", controlledResources=["memory"])
    (found,) = model.recommend(autoscaler(*policies), ["main", "sidecar"])
    assert (found.name, set(found.target)) == ("main", {"memory"})
    assert found.uncapped == found.target


def test_a_restart_remembers() -> None:
    timeline, model, again = Timeline(VirtualClock()), Model(), Model()
    for minute in range(3 * 1440):
        model.use(Usage("web-1", "main", 0.5 + minute % 7 / 10, 500 * MI, 0.5, minute * 60.0))
    again.load("main", model.saved("main", timeline), timeline)
    before, after = model.aggregates["main"], again.aggregates["main"]
    assert (before.first, before.samples) == (after.first, after.samples)
    assert after.cpu.percentile(0.9) == before.cpu.percentile(0.9)
    with pytest.raises(ValueError, match="version"):
        again.load("main", {"version": "v1"}, timeline)


def test_old_history_goes() -> None:
    model = Model()
    model.use(Usage("web-1", "main", 1.0, None, 0.5, 0.0))
    model.forget(["web-1"], 7 * DAY)
    assert model.aggregates
    model.forget(["web-1"], 8 * DAY)
    assert not model.aggregates


def test_time_runs_at_the_clusters_scale() -> None:
    timeline = Timeline(RealClock(60.0))
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert timeline.moment(timeline.seconds(moment)) == moment
    assert timeline.seconds(timeline.moment(3600.0)) == pytest.approx(3600.0)
    assert (timeline.moment(3600.0) - timeline.moment(0.0)).total_seconds() == pytest.approx(60.0)
