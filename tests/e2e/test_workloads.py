"""Jobs, StatefulSets, DaemonSets, CronJobs and budgets with real containers, as a user of kubectl sees them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.harness.nanokube import Cluster, eventually, is_ready

# Ends at once on SIGTERM.
STAY = ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]

Obj = dict[str, Any]


def container(*command: str, **fields: Any) -> Obj:
    return {"name": "main", "image": "busybox", "command": list(command), **fields}


def job(name: str, *command: str, **spec: Any) -> Obj:
    pod = {"restartPolicy": "Never", "containers": [container(*command)]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": pod}, **spec},
    }


def workload(kind: str, name: str, **spec: Any) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [container(*STAY)], "terminationGracePeriodSeconds": 5},
            },
            **spec,
        },
    }


def apply(cluster: Cluster, namespace: str, *objects: Obj) -> None:
    body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(body))


def test_a_job_runs_to_completion(cluster: Cluster, namespace: str) -> None:
    apply(cluster, namespace, job("sums", "sh", "-c", "echo done", completions=3, parallelism=2))
    cluster.kubectl("wait", "job/sums", "-n", namespace, "--for=condition=Complete", "--timeout=60s")
    status = cluster.get("job", "sums", "-n", namespace)["status"]
    assert (status["succeeded"], status["ready"], status["uncountedTerminatedPods"]) == (3, 0, {})
    assert cluster.kubectl("get", "job", "sums", "-n", namespace, "--no-headers").split()[:3] == [
        "sums",
        "Complete",
        "3/3",
    ]
    assert "done" in cluster.kubectl("logs", "job/sums", "-n", namespace)
    assert "Completed" in cluster.kubectl("describe", "job", "sums", "-n", namespace)


def test_an_indexed_job_tells_each_pod_its_index(cluster: Cluster, namespace: str) -> None:
    told = "echo index=$JOB_COMPLETION_INDEX host=$(hostname)"
    apply(cluster, namespace, job("parts", "sh", "-c", told, completions=3, parallelism=3, completionMode="Indexed"))
    cluster.kubectl("wait", "job/parts", "-n", namespace, "--for=condition=Complete", "--timeout=60s")
    assert cluster.get("job", "parts", "-n", namespace)["status"]["completedIndexes"] == "0-2"
    lines = set(cluster.kubectl("logs", "-n", namespace, "-l", "job-name=parts", "--tail=-1").split("\n"))
    assert lines - {""} == {f"index={n} host=parts-{n}" for n in range(3)}


def test_a_job_fails_by_its_policy_and_expires(cluster: Cluster, namespace: str) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    failing = job("broken", "sh", "-c", "exit 42", podFailurePolicy={"rules": [rule]}, ttlSecondsAfterFinished=3)
    apply(cluster, namespace, failing)
    cluster.kubectl("wait", "job/broken", "-n", namespace, "--for=condition=Failed", "--timeout=60s")
    (told,) = (
        each
        for each in cluster.get("job", "broken", "-n", namespace)["status"]["conditions"]
        if each["type"] == "Failed"
    )
    assert told["reason"] == "PodFailurePolicy"
    assert told["message"].endswith("failed with exit code 42 matching FailJob rule at index 0")
    eventually(lambda: not cluster.items("jobs", "-n", namespace), "the job to expire")
    eventually(lambda: not cluster.pods("job-name=broken", namespace), "its pod to go")


def test_a_statefulset_rolls_out_and_back_in_order(cluster: Cluster, namespace: str) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db"},
        "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 80}]},
    }
    apply(cluster, namespace, service, workload("StatefulSet", "db", replicas=3, serviceName="db"))
    told = cluster.kubectl("rollout", "status", "statefulset/db", "-n", namespace, "--timeout=60s")
    assert "statefulset rolling update complete 3 pods" in told or "partitioned roll out complete" in told
    pods = sorted(cluster.pods("app=db", namespace), key=lambda pod: str(pod["metadata"]["name"]))
    assert [pod["metadata"]["name"] for pod in pods] == ["db-0", "db-1", "db-2"]
    started = [pod["status"]["startTime"] for pod in pods]
    assert started == sorted(started)
    assert cluster.kubectl("exec", "-n", namespace, "db-1", "--", "hostname").strip() == "db-1"

    cluster.kubectl("set", "env", "statefulset/db", "-n", namespace, "COLOUR=blue")
    cluster.kubectl("rollout", "status", "statefulset/db", "-n", namespace, "--timeout=60s")
    show = ("exec", "-n", namespace, "db-0", "--", "sh", "-c", "echo colour=$COLOUR")
    assert cluster.kubectl(*show).strip() == "colour=blue"
    history = cluster.kubectl("rollout", "history", "statefulset/db", "-n", namespace)
    assert [line.split()[0] for line in history.splitlines() if line[:1].isdigit()] == ["1", "2"]
    cluster.kubectl("rollout", "undo", "statefulset/db", "-n", namespace)
    cluster.kubectl("rollout", "status", "statefulset/db", "-n", namespace, "--timeout=60s")
    assert cluster.kubectl(*show).strip() == "colour="

    cluster.kubectl("scale", "statefulset/db", "-n", namespace, "--replicas=1")
    eventually(lambda: [p["metadata"]["name"] for p in cluster.pods("app=db", namespace)] == ["db-0"], "only db-0")


def test_a_daemonset_runs_on_every_node_and_restarts(cluster: Cluster, namespace: str) -> None:
    apply(cluster, namespace, workload("DaemonSet", "agent"))
    cluster.kubectl("rollout", "status", "daemonset/agent", "-n", namespace, "--timeout=60s")
    before = cluster.running("app=agent", namespace)
    assert sorted(pod["spec"]["nodeName"] for pod in before) == sorted(cluster.ready_nodes())
    cluster.kubectl("rollout", "restart", "daemonset/agent", "-n", namespace)
    told = cluster.kubectl("rollout", "status", "daemonset/agent", "-n", namespace, "--timeout=60s")
    assert 'daemon set "agent" successfully rolled out' in told
    after = cluster.running("app=agent", namespace)
    assert sorted(pod["spec"]["nodeName"] for pod in after) == sorted(cluster.ready_nodes())
    assert not {pod["metadata"]["uid"] for pod in before} & {pod["metadata"]["uid"] for pod in after}
    cluster.kubectl("rollout", "undo", "daemonset/agent", "-n", namespace)
    cluster.kubectl("rollout", "status", "daemonset/agent", "-n", namespace, "--timeout=60s")
    history = cluster.kubectl("rollout", "history", "daemonset/agent", "-n", namespace)
    assert [line.split()[0] for line in history.splitlines() if line[:1].isdigit()] == ["2", "3"]


def test_a_cronjob_starts_its_jobs(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl(
        "create", "cronjob", "tick", "-n", namespace, "--image=busybox", "--schedule=* * * * *", "--", "echo", "tock"
    )  # fmt: skip
    cluster.kubectl("create", "job", "by-hand", "-n", namespace, "--from=cronjob/tick")
    cluster.kubectl("wait", "job/by-hand", "-n", namespace, "--for=condition=Complete", "--timeout=60s")
    last = (datetime.now(UTC) - timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    patch = json.dumps({"status": {"lastScheduleTime": last}})
    cluster.kubectl("patch", "cronjob/tick", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)

    def ran() -> bool:
        return bool(cluster.get("cronjob", "tick", "-n", namespace)["status"].get("lastSuccessfulTime"))

    eventually(ran, "a run that succeeded", timeout=60)
    names = [each["metadata"]["name"] for each in cluster.items("jobs", "-n", namespace)]
    assert any(name.startswith("tick-") for name in names)


def test_drain_keeps_the_disruption_budget(cluster: Cluster, namespace: str) -> None:
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}},
    }
    apply(cluster, namespace, budget, workload("Deployment", "web", replicas=3))
    cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s")

    def allows_one() -> bool:
        status = cluster.get("pdb", "web", "-n", namespace)["status"]
        return (status["currentHealthy"], status["desiredHealthy"], status["disruptionsAllowed"]) == (3, 2, 1)

    eventually(allows_one, "one disruption allowed")
    node = cluster.running("app=web", namespace)[0]["spec"]["nodeName"]
    try:
        selector = "--pod-selector=app=web"
        cluster.kubectl("drain", node, selector, "--ignore-daemonsets", "--force", "--timeout=60s")
        left = [pod for pod in cluster.pods("app=web", namespace) if pod["spec"].get("nodeName") == node]
        assert not left
        eventually(lambda: sum(map(is_ready, cluster.pods("app=web", namespace))) == 3, "three pods elsewhere")
    finally:
        cluster.kubectl("uncordon", node)
