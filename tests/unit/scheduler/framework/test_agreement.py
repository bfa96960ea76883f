"""The arrays against the slow reference, on random clusters: same verdicts, same scores, same choice, at every step."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.models import core_v1
from scheduler.framework.framework import Framework
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.registry import default_framework
from tests.unit.scheduler import clusters
from tests.unit.scheduler.reference import Reference


def placed(pod: core_v1.Pod, node: str) -> core_v1.Pod:
    assert pod.spec is not None
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, nodeName=node))


def check(framework: Framework, snapshot: ClusterSnapshot, reference: Reference, pod: core_v1.Pod) -> str:
    """Compare one decision in every detail; returns the chosen node, or ""."""
    info = PodInfo(pod)
    decision = framework.schedule(info, snapshot)
    rejection = reference.rejection(pod)
    if rejection:
        assert decision.error is not None and decision.error.rejection == rejection
        return ""
    refusals = {str(node.metadata.name): reference.refusal(pod, node) for node in reference.nodes if node.metadata}
    refused = {name: sorted(reasons) for name, (reasons, _) in refusals.items() if reasons}
    verdicts = {verdict.node: verdict for verdict in framework.explain(info, snapshot)}
    assert {name: sorted(v.reasons) for name, v in verdicts.items() if v.reasons} == refused

    expected = reference.scores(pod)
    for name, by_plugin in expected.items():
        scores = verdicts[name].scores
        # A plugin that was skipped gives every node the same; then it must not have told nodes apart.
        for plugin in by_plugin.keys() - scores.keys():
            assert len({others[plugin] for others in expected.values()}) == 1, plugin
        assert {plugin: by_plugin[plugin] for plugin in scores} == scores

    if reference.promised(pod) in expected:
        assert decision.node == reference.promised(pod)
    elif decision.error is None:
        totals = {name: sum(by_plugin.values()) for name, by_plugin in expected.items()}
        best = {name for name, total in totals.items() if total == max(totals.values())}
        assert decision.node in best
        assert decision.feasible == len(best)
    else:
        assert not expected
        assert decision.error.reasons == Counter(reason for reasons in refused.values() for reason in reasons)
        resolvable = sum(bool(reasons) and can for reasons, can in refusals.values())
        assert decision.error.resolvable_count() == resolvable
    return decision.node


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_decisions_agree_with_the_reference_while_the_cluster_changes(data: st.DataObject) -> None:
    snapshot = ClusterSnapshot(capacity=2)
    framework = default_framework(rng=random.Random(7))
    nodes = {f"n{index}": data.draw(clusters.nodes(f"n{index}")) for index in range(data.draw(st.integers(1, 5)))}
    for each in nodes.values():
        snapshot.set_node(each)
    templates = [data.draw(clusters.pods(f"template{index}")) for index in range(2)]
    pods: dict[str, core_v1.Pod] = {}
    for step in range(data.draw(st.integers(1, 6))):
        template = data.draw(st.sampled_from(templates))
        assert template.metadata is not None
        name = f"pod{step}"
        pod = msgspec.structs.replace(
            template, metadata=msgspec.structs.replace(template.metadata, name=name, uid=name)
        )
        chosen = check(framework, snapshot, Reference(nodes.values(), pods.values()), pod)
        if chosen:
            pods[name] = placed(pod, chosen)
            snapshot.add_pod(PodInfo(pods[name]), chosen)
        match data.draw(st.integers(0, 5)):
            case 0 if pods:
                gone = data.draw(st.sampled_from(sorted(pods)))
                del pods[gone]
                snapshot.remove_pod(gone)
            case 1:
                changed = data.draw(st.sampled_from(sorted(nodes)))
                nodes[changed] = data.draw(clusters.nodes(changed))
                snapshot.set_node(nodes[changed])
            case 2 if len(nodes) > 1:
                gone = data.draw(st.sampled_from(sorted(nodes)))
                del nodes[gone]
                snapshot.remove_node(gone)
            case 3:
                fresh = f"m{step}"
                nodes[fresh] = data.draw(clusters.nodes(fresh))
                snapshot.set_node(nodes[fresh])
