"""The README's session: deploy, look, reach, break, heal."""

from __future__ import annotations

import json

from tests.harness.nanokube import Cluster, eventually, is_ready

# Ends at once on SIGTERM, which httpd as process 1 would ignore for the whole grace period.
SERVE = "hostname > /tmp/index.html; httpd -p 8080 -h /tmp; trap 'exit 0' TERM; sleep 3600 & wait"
HTTPD = ("--image=busybox", "--", "sh", "-c", SERVE)


def test_deploy_scale_and_look(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "deployment", "web", "-n", namespace, "--replicas=3", *HTTPD)
    told = cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s")
    assert 'deployment "web" successfully rolled out' in told
    wide = cluster.kubectl("get", "pods", "-n", namespace, "-o", "wide")
    assert wide.splitlines()[0].split()[:6] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"]
    assert wide.count("1/1") == 3 and wide.count("Running") == 3
    assert {pod["spec"]["nodeName"] for pod in cluster.pods("app=web", namespace)} <= cluster.ready_nodes()
    cluster.kubectl("scale", "deployment/web", "-n", namespace, "--replicas=5")
    eventually(lambda: len(cluster.running("app=web", namespace)) == 5, "five pods")
    cluster.kubectl("scale", "deployment/web", "-n", namespace, "--replicas=1")
    eventually(lambda: len(cluster.pods("app=web", namespace)) == 1, "one pod", timeout=60)


def test_pods_reach_each_other_and_the_service(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "deployment", "web", "-n", namespace, "--replicas=3", *HTTPD)
    cluster.kubectl("expose", "deployment/web", "-n", namespace, "--port=80", "--target-port=8080")
    cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s")
    pods = cluster.running("app=web", namespace)
    service = cluster.get("service", "web", "-n", namespace)["spec"]["clusterIP"]
    for pod in pods:
        for other in pods:
            page = cluster.kubectl(
                "exec", "-n", namespace, pod["metadata"]["name"], "--",
                "wget", "-q", "-O", "-", f"http://{other['status']['podIP']}:8080/",
            )  # fmt: skip
            assert page.strip() == other["metadata"]["name"]

    def answers() -> set[str]:
        loop = f"for i in 1 2 3 4 5 6 7 8 9 10 11 12; do wget -q -O - http://{service}/; done"
        told = cluster.kubectl(
            "exec", "-n", namespace, pods[0]["metadata"]["name"], "--", "sh", "-c", loop, check=False
        )
        return set(told.split())

    names = {pod["metadata"]["name"] for pod in pods}
    seen: set[str] = set()

    def all_seen() -> bool:
        seen.update(answers())
        return names <= seen

    eventually(all_seen, "every pod to answer through the ClusterIP")
    home = pods[0]["spec"]["nodeName"]
    near = {pod["metadata"]["name"] for pod in pods if pod["spec"]["nodeName"] == home}
    for policy in ({"trafficDistribution": "PreferSameNode"}, {"internalTrafficPolicy": "Local"}):
        cluster.kubectl("patch", "service", "web", "-n", namespace, "-p", json.dumps({"spec": policy}))
        eventually(lambda: answers() == near, f"answers from {home} alone: {policy}")
        undone = {"trafficDistribution": None, "internalTrafficPolicy": "Cluster"}
        cluster.kubectl("patch", "service", "web", "-n", namespace, "-p", json.dumps({"spec": undone}))


def test_the_host_reaches_the_service(cluster: Cluster, namespace: str) -> None:
    import urllib.request

    cluster.kubectl("create", "deployment", "web", "-n", namespace, *HTTPD)
    cluster.kubectl("expose", "deployment/web", "-n", namespace, "--port=80", "--target-port=8080")
    cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s")
    service = cluster.get("service", "web", "-n", namespace)["spec"]["clusterIP"]

    def page() -> str:
        try:
            with urllib.request.urlopen(f"http://{service}/", timeout=2) as answer:
                return str(answer.read().decode()).strip()
        except OSError:
            return ""

    assert (
        eventually(page, "an answer from the ClusterIP") == cluster.running("app=web", namespace)[0]["metadata"]["name"]
    )


def test_logs_and_exec(cluster: Cluster, namespace: str) -> None:
    script = "echo to-out; echo to-err >&2; sleep 3600"
    cluster.kubectl("run", "talker", "-n", namespace, "--image=busybox", "--restart=Never", "--", "sh", "-c", script)
    cluster.kubectl("wait", "pod/talker", "-n", namespace, "--for=condition=Ready", "--timeout=60s")
    eventually(
        lambda: set(cluster.kubectl("logs", "talker", "-n", namespace).split()) == {"to-out", "to-err"}, "both streams"
    )
    assert cluster.kubectl("exec", "talker", "-n", namespace, "--", "hostname").strip() == "talker"
    told = cluster.kubectl("exec", "talker", "-n", namespace, "--", "sh", "-c", "exit 7", check=False)
    assert "command terminated with exit code 7" in told
    echoed = cluster.kubectl("exec", "-i", "talker", "-n", namespace, "--", "cat", stdin="through stdin\n")
    assert echoed == "through stdin\n"


def test_rolling_update_and_undo(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "deployment", "web", "-n", namespace, "--replicas=3", *HTTPD)
    cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s")
    cluster.kubectl("set", "env", "deployment/web", "-n", namespace, "COLOR=blue")
    cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=90s")

    def colors() -> set[str]:
        return {
            next((each["value"] for each in pod["spec"]["containers"][0].get("env", ())), "")
            for pod in cluster.pods("app=web", namespace)
        }

    eventually(lambda: colors() == {"blue"}, "only new pods", timeout=60)
    history = cluster.kubectl("rollout", "history", "deployment/web", "-n", namespace)
    assert "1" in history and "2" in history
    cluster.kubectl("rollout", "undo", "deployment/web", "-n", namespace)
    cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=90s")
    eventually(lambda: colors() == {""}, "only old pods again", timeout=60)


def test_restarts_and_back_off(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("run", "crasher", "-n", namespace, "--image=busybox", "--", "sh", "-c", "exit 3")

    def state() -> bool:
        (container,) = cluster.get("pod", "crasher", "-n", namespace)["status"].get("containerStatuses", [{}])
        waiting = container.get("state", {}).get("waiting", {}).get("reason")
        last = container.get("lastState", {}).get("terminated", {}).get("exitCode")
        return (waiting, last) == ("CrashLoopBackOff", 3) and container["restartCount"] >= 1

    eventually(state, "CrashLoopBackOff", timeout=40)
    assert "BackOff" in cluster.kubectl("get", "events", "-n", namespace)


def test_memory_limit_kills(cluster: Cluster, namespace: str) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "eater", "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "eater",
                    "image": "busybox",
                    "command": ["sh", "-c", "x=a; while true; do x=$x$x; done"],
                    "resources": {"limits": {"memory": "24Mi"}},
                }
            ],
        },
    }
    import json

    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def reason() -> str:
        statuses = cluster.get("pod", "eater", "-n", namespace)["status"].get("containerStatuses") or [{}]
        return str(statuses[0].get("state", {}).get("terminated", {}).get("reason", ""))

    assert eventually(reason, "the end of the eater", timeout=60) == "OOMKilled"


def test_what_cannot_run_says_why(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("run", "noimage", "-n", namespace, "--image=localhost:1/nothing/here:1")
    cluster.kubectl("run", "nocommand", "-n", namespace, "--image=busybox", "--command", "--", "/no/such/program")
    overrides = '{"spec":{"containers":[{"name":"huge","image":"busybox","resources":{"requests":{"cpu":"64"}}}]}}'
    cluster.kubectl("run", "huge", "-n", namespace, "--image=busybox", f"--overrides={overrides}")

    def waiting(pod: str) -> str:
        statuses = cluster.get("pod", pod, "-n", namespace)["status"].get("containerStatuses") or [{}]
        state, last = statuses[0].get("state", {}), statuses[0].get("lastState", {})
        return str(
            state.get("waiting", {}).get("reason")
            or state.get("terminated", {}).get("reason")
            or last.get("terminated", {}).get("reason")
            or ""
        )

    eventually(lambda: waiting("noimage") in ("ErrImagePull", "ImagePullBackOff"), "a pull error")
    eventually(lambda: waiting("nocommand") in ("RunContainerError", "StartError", "CrashLoopBackOff"), "a start error")

    def unschedulable() -> str:
        conditions = cluster.get("pod", "huge", "-n", namespace)["status"].get("conditions") or []
        return next((each["message"] for each in conditions if each.get("reason") == "Unschedulable"), "")

    assert eventually(unschedulable, "a scheduling verdict").startswith("0/3 nodes are available: 3 Insufficient cpu.")


def test_deleting_a_pod_of_a_deployment_brings_another(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "deployment", "web", "-n", namespace, "--replicas=2", *HTTPD)
    cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s")
    victim = cluster.running("app=web", namespace)[0]["metadata"]["name"]
    cluster.kubectl("delete", "pod", victim, "-n", namespace, "--grace-period=1")

    def names() -> set[str]:
        pods = [pod for pod in cluster.pods("app=web", namespace) if is_ready(pod)]
        return {pod["metadata"]["name"] for pod in pods} if len(pods) == 2 else set()

    assert victim not in eventually(names, "two pods again")
