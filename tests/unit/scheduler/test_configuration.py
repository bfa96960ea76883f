"""The configuration file: what profiles it makes, and what it is refused for."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import app
from scheduler.configuration import ConfigurationError, extenders, frameworks, parse
from scheduler.framework.framework import Framework
from scheduler.framework.scoring import Scoring, Strategy, score, wanted
from scheduler.framework.snapshot import ClusterSnapshot
from tests.unit.scheduler.objects import info, node

HEAD = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"


def made(text: str) -> dict[str, Framework]:
    return frameworks(parse((HEAD + text).encode()), None, Random(1))


def scores(framework: Framework) -> dict[str, float]:
    return {plugin.name: weight for plugin, weight in framework.scores}


def test_without_profiles_there_is_the_default_one() -> None:
    (framework,) = made("").values()
    assert framework.name == "default-scheduler"
    assert scores(framework) == {
        "TaintToleration": 3,
        "NodeAffinity": 2,
        "NodeResourcesFit": 1,
        "PodTopologySpread": 2,
        "InterPodAffinity": 2,
        "NodeResourcesBalancedAllocation": 1,
        "ImageLocality": 1,
    }


def test_several_profiles_with_plugins_of_their_own() -> None:
    both = made(
        """
profiles:
- schedulerName: default-scheduler
- schedulerName: packer
  plugins:
    score:
      disabled: [{name: ImageLocality}, {name: NodeAffinity}]
      enabled: [{name: NodeResourcesFit, weight: 7}]
    multiPoint:
      disabled: [{name: InterPodAffinity}]
    postFilter:
      disabled: [{name: "*"}]
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}, {name: memory, weight: 1}]}}
"""
    )
    assert list(both) == ["default-scheduler", "packer"]
    packer = both["packer"]
    assert scores(packer) == {
        "TaintToleration": 3,
        "NodeResourcesFit": 7,
        "PodTopologySpread": 2,
        "NodeResourcesBalancedAllocation": 1,
    }
    names = [plugin.name for plugin in packer.filters]
    assert "NodeAffinity" in names and "InterPodAffinity" not in names
    assert not packer.post_filters and both["default-scheduler"].post_filters
    snapshot = ClusterSnapshot()
    for name in ("n1", "n2"):
        snapshot.set_node(node(name))
    snapshot.add_pod(info("first", {"cpu": "1", "memory": "2Gi"}), "n2")
    assert packer.schedule(info("next", {"cpu": "1", "memory": "2Gi"}), snapshot).node == "n2"
    assert both["default-scheduler"].schedule(info("next", {"cpu": "1", "memory": "2Gi"}), snapshot).node == "n1"


def test_everything_off_but_a_few() -> None:
    (framework,) = made(
        """
profiles:
- plugins:
    multiPoint:
      disabled: [{name: "*"}]
      enabled: [{name: PrioritySort}, {name: NodeResourcesFit, weight: 3}]
"""
    ).values()
    assert [plugin.name for plugin in framework.filters] == ["NodeResourcesFit"]
    assert scores(framework) == {"NodeResourcesFit": 3}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("profiles: []", "profiles: Required value", id="no profiles"),
        pytest.param("profiles: [{schedulerName: a}, {schedulerName: a}]", 'Duplicate value: "a"', id="twice"),
        pytest.param("profils: []", "unknown field", id="typing error"),
        pytest.param("profiles: 3", "array", id="wrong type"),
        pytest.param("profiles: [", "line 4", id="no YAML"),
        pytest.param(
            "profiles: [{plugins: {score: {enabled: [{name: Magic}]}}}]",
            'plugins.score: there is no plugin "Magic"',
            id="unknown plugin",
        ),
        pytest.param(
            "profiles: [{plugins: {queueSort: {disabled: [{name: '*'}]}}}]", "exactly one QueueSort", id="no queue sort"
        ),
        pytest.param(
            "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Random}}}]}]",
            "pluginConfig[NodeResourcesFit].args",
            id="unknown strategy",
        ),
        pytest.param(
            "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: "
            "{scoringStrategy: {type: RequestedToCapacityRatio}}}]}]",
            "shape",
            id="ratio without a shape",
        ),
        pytest.param(
            "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]",
            "hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
            id="weight out of range",
        ),
        pytest.param("podInitialBackoffSeconds: 5\npodMaxBackoffSeconds: 1", "podMaxBackoffSeconds", id="back-off"),
    ],
)
def test_what_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made(text)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("plugin", "args", "told"),
    [
        ("DefaultPreemption", "{minCandidateNodesPercentage: 101}", "not in valid range [0, 100]"),
        ("DefaultPreemption", "{minCandidateNodesAbsolute: -1}", "not in valid range [0, inf)"),
        (
            "DefaultPreemption",
            "{minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0}",
            "cannot both be zero",
        ),
        ("VolumeBinding", "{bindTimeoutSeconds: -1}", "should not be a negative value"),
        ("VolumeBinding", "{shape: [{utilization: 0, score: 0}]}", "StorageCapacityScoring"),
        ("NodeResourcesBalancedAllocation", "{resources: [{name: cpu, weight: 2}]}", "must be 1"),
        ("NodeResourcesBalancedAllocation", "{resources: [{name: a}, {name: a}]}", 'Duplicate value: "a"'),
        ("NodeResourcesBalancedAllocation", "{resources: [{name: cpu}]}", "only the balance of cpu and memory"),
        ("NodeResourcesFit", "{ignoredResourceGroups: [a/b]}", "can't contain '/'"),
        (
            "NodeResourcesFit",
            "{scoringStrategy: {resources: [{name: cpu, weight: 101}]}}",
            "scoringStrategy.resources[0].weight: Invalid value: 101",
        ),
        (
            "NodeAffinity",
            "{addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}}",
            "must have at least one node selector term",
        ),
        ("PodTopologySpread", "{defaultingType: Maybe}", 'Unsupported value: "Maybe"'),
        (
            "PodTopologySpread",
            "{defaultingType: List, defaultConstraints: "
            "[{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]}",
            "maxSkew: Invalid value: 0",
        ),
        (
            "PodTopologySpread",
            "{defaultingType: List, defaultConstraints: "
            "[{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule}, "
            "{maxSkew: 2, topologyKey: z, whenUnsatisfiable: DoNotSchedule}]}",
            "Duplicate value",
        ),
        ("ImageLocality", "{}", "takes no arguments"),
        ("InterPodAffinity", "{kind: NodeAffinityArgs}", "wanted InterPodAffinityArgs"),
    ],
)
def test_arguments_out_of_their_limits(plugin: str, args: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made(f"profiles: [{{pluginConfig: [{{name: {plugin}, args: {args}}}]}}]")
    assert f"pluginConfig[{plugin}].args" in str(caught.value) and told in str(caught.value)


def test_added_affinity_holds_for_every_pod() -> None:
    (framework,) = made(
        """
profiles:
- pluginConfig:
  - name: NodeAffinity
    args:
      addedAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms: [{matchExpressions: [{key: pool, operator: In, values: [blue]}]}]
        preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 5
          preference: {matchExpressions: [{key: disk, operator: Exists}]}
"""
    ).values()
    snapshot = ClusterSnapshot()
    for name, labels in (("n1", {"pool": "blue"}), ("n2", {"pool": "blue", "disk": "ssd"}), ("n3", {"disk": "ssd"})):
        snapshot.set_node(node(name, labels=labels))
    assert framework.schedule(info("plain", {"cpu": "1"}), snapshot).node == "n2"
    picky = info("picky", {"cpu": "1"}, nodeSelector={"disk": "none"})
    error = framework.schedule(picky, snapshot).error
    assert error is not None and error.reasons == {
        "node(s) didn't match scheduler-enforced node affinity": 1,
        "node(s) didn't match Pod's node affinity/selector": 2,
    }


def test_resources_of_ignored_groups_are_not_counted() -> None:
    (framework,) = made(
        """
profiles:
- pluginConfig: [{name: NodeResourcesFit, args: {ignoredResourceGroups: [example.com], ignoredResources: [a/b]}}]
"""
    ).values()
    snapshot = ClusterSnapshot()
    snapshot.set_node(node("n1"))
    assert framework.schedule(info("p", {"example.com/gpu": "1", "a/b": "1"}), snapshot).node == "n1"
    assert framework.schedule(info("q", {"other.com/gpu": "1"}), snapshot).error is not None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{urlPrefix: http://x, prioritizeVerb: p}", "weight: must have a positive weight applied to it"),
        ("{urlPrefix: http://x, managedResources: [{name: gpu}]}", "invalid extended resource name"),
        ("{urlPrefix: http://x, managedResources: [{name: a/b}, {name: a/b}]}", "duplicate extender managed resource"),
        ("{urlPrefix: http://x, httpTimeout: soon}", "invalid duration"),
        ("{urlPrefix: https://x, tlsConfig: {caFile: /no/such/file}}", "No such file"),
        (
            "{urlPrefix: http://x, bindVerb: b}, {urlPrefix: http://y, bindVerb: b}",
            "found 2 extenders implementing bind",
        ),
        ("{filterVerb: f}", "urlPrefix"),
    ],
)
def test_extenders_out_of_their_limits(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        extenders(parse((HEAD + f"extenders: [{text}]").encode()))


def test_resources_that_extenders_account_for_are_ignored_by_filters() -> None:
    (framework,) = made(
        "extenders: [{urlPrefix: http://x, managedResources: [{name: a.com/gpu, ignoredByScheduler: true}]}]"
    ).values()
    snapshot = ClusterSnapshot()
    snapshot.set_node(node("n1"))
    assert framework.schedule(info("p", {"a.com/gpu": "1"}), snapshot).node == "n1"


def test_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="wanted a KubeSchedulerConfiguration"):
        parse(b"apiVersion: v1\nkind: Pod\n")


@pytest.mark.parametrize("text", [None, HEAD + "nonsense: 1\n"], ids=["missing", "wrong"])
def test_the_process_says_what_is_wrong_with_its_file(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    path = tmp_path_factory.mktemp("config") / "scheduler.yaml"
    if text is not None:
        path.write_text(text)
    code = app.main(["--api-server", "127.0.0.1:1", "--config", str(path)])
    assert code == 1
    assert "kube-scheduler: --config: " in capsys.readouterr().err


def test_default_constraints_of_the_file() -> None:
    (framework,) = made(
        """
profiles:
- pluginConfig:
  - name: PodTopologySpread
    args:
      defaultingType: List
      defaultConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]
"""
    ).values()
    snapshot = ClusterSnapshot()
    snapshot.set_node(node("n1", labels={"zone": "a"}))
    snapshot.set_node(node("n2", labels={"zone": "b"}))
    snapshot.workloads.set_service("default", "web", {"app": "web"})
    for index in range(4):
        pod = info(f"p{index}", labels={"app": "web"})
        snapshot.add_pod(pod, framework.schedule(pod, snapshot).node)
    homes = [snapshot.home_of(f"uid-p{index}") for index in range(4)]
    assert homes.count("n1") == homes.count("n2") == 2


# --- scoring strategies against the plain formulas -----------------------------------------------------------------

amounts = st.integers(0, 12)
shapes = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 10)), min_size=1, max_size=4, unique_by=lambda p: p[0])


def plain_ratio(shape: list[tuple[int, int]], used: int, capacity: int) -> int:
    at = 100 if used > capacity else used * 100 // capacity
    points = [(where, worth * 10) for where, worth in shape]
    if at <= points[0][0]:
        return points[0][1]
    for (low, before), (high, after) in pairwise(points):
        if at <= high:
            return before + int(Fraction((after - before) * (at - low), high - low))
    return points[-1][1]


@given(
    strategy=st.sampled_from(list(Strategy)),
    shape=shapes.map(sorted),
    gpus=st.tuples(amounts, amounts, amounts),
    cpus=st.tuples(amounts, amounts, amounts),
    weights=st.tuples(st.integers(1, 100), st.integers(1, 100)),
)
def test_strategies_agree_with_the_plain_formulas(
    strategy: Strategy,
    shape: list[tuple[int, int]],
    gpus: tuple[int, int, int],
    cpus: tuple[int, int, int],
    weights: tuple[int, int],
) -> None:
    snapshot = ClusterSnapshot()
    snapshot.set_node(node("n1", cpu=cpus[0], example_com__gpu=gpus[0]))
    snapshot.add_pod(info("old", {"cpu": str(cpus[1]), "example-com/gpu": str(gpus[1])}), "n1")
    pod = info("new", {"cpu": str(cpus[2]), "example-com/gpu": str(gpus[2])})
    scoring = Scoring(strategy, (("cpu", weights[0]), ("example-com/gpu", weights[1])), tuple(shape))
    total = weight_sum = 0
    for (capacity, old, new), weight, scale in ((cpus, weights[0], 1000), (gpus, weights[1], 1)):
        if not capacity or (scale == 1 and not new):
            continue
        offered, used = capacity * scale, (old + new) * scale
        match strategy:
            case Strategy.LEAST_ALLOCATED:
                value = max(offered - used, 0) * 100 // offered
            case Strategy.MOST_ALLOCATED:
                value = min(used, offered) * 100 // offered
            case _:
                value = plain_ratio(shape, used, offered)
                if not value:
                    continue
        total += value * weight
        weight_sum += weight
    if not weight_sum:
        expected = 0
    elif strategy is Strategy.REQUESTED_TO_CAPACITY_RATIO:
        expected = int(Fraction(total, weight_sum) + Fraction(1, 2))
    else:
        expected = total // weight_sum
    asked = wanted(scoring, pod)
    assert list(score(scoring, asked, snapshot, slice(0, 1))) == [expected]
