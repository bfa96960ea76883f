"""`kubectl get -w`: the rows a user sees, in upstream's order. Rows that differ in their age alone count once."""

from __future__ import annotations

import contextlib
import re
import select
import subprocess
import time
from collections.abc import Iterator

from tests.conformance.objects import STAY, container, headless, job, pod, set_env, workload
from tests.harness.api import Api, Collection, Obj
from tests.harness.nanokube import Cluster, kubectl

GATED = pod("marker", schedulingGates=[{"name": "example.com/never"}])
AGE = re.compile(r"\s+(\d+[smhd])+$|\s+<invalid>$")


class Watch:
    """`kubectl get KIND -w` and the rows it has printed, without their age."""

    def __init__(self, cluster: Cluster, namespace: str, *arguments: str) -> None:
        argv = [kubectl(), "get", "-n", namespace, "-w", "--no-headers", *arguments]
        self.process = subprocess.Popen(argv, env=cluster.environment, stdout=subprocess.PIPE, bufsize=0)
        self.rows: list[str] = []
        self._rest = b""

    def until(self, wanted: str, seconds: float = 60.0) -> list[str]:
        """Read rows until one matches; all rows so far, each once."""
        deadline = time.monotonic() + seconds
        stream = self.process.stdout
        assert stream is not None
        while not (self.rows and re.fullmatch(wanted, self.rows[-1])):
            assert time.monotonic() < deadline, (wanted, self.rows)
            if not select.select([stream], [], [], 0.2)[0]:
                continue
            *lines, self._rest = (self._rest + stream.read(65536)).split(b"\n")
            for line in lines:
                row = " ".join(AGE.sub("", line.decode()).split())
                if row.startswith("marker ") and self.rows:
                    continue
                if not self.rows or self.rows[-1] != row:
                    self.rows.append(row)
                if re.fullmatch(wanted, row):
                    break
        return self.rows


@contextlib.contextmanager
def watching(cluster: Cluster, kind: Collection, marker: Obj) -> Iterator[Watch]:
    """A watch that has begun: it has shown a marker object, which never changes."""
    namespace, plural = kind.path.split("/")[-2:]
    marker["metadata"]["name"] = "marker"
    kind.create(marker)
    made = Watch(cluster, namespace, plural)
    try:
        made.until("marker .*")
        made.rows.clear()
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


def test_a_pods_life(cluster: Cluster, api: Api, namespace: str) -> None:
    pods = api.of("v1", "pods", namespace)
    with watching(cluster, pods, GATED) as watch:
        pods.create(pod("web", main=container(STAY)))
        watch.until(r"web 1/1 Running 0")
        pods.delete("web")
        rows = watch.until(r"web 0/1 Completed 0")
    expected = [
        "web 0/1 Pending 0",
        "web 0/1 ContainerCreating 0",
        "web 1/1 Running 0",
        "web 1/1 Terminating 0",
        "web 0/1 Completed 0",
    ]
    assert rows == expected


def test_a_job(cluster: Cluster, api: Api, namespace: str) -> None:
    jobs = api.of("batch/v1", "jobs", namespace)
    with watching(cluster, jobs, job("marker", "true", suspend=True)) as watch:
        jobs.create(job("once", "sleep 0.3"))
        rows = watch.until(r"once Complete 1/1 \S+")
    timeless = [re.sub(r" \d+s$", "", row) for row in rows]
    states = [each for each, before in zip(timeless, ["", *timeless], strict=False) if each != before]
    assert states in (
        ["once Running 0/1", "once SuccessCriteriaMet 0/1", "once Complete 1/1"],
        ["once Running 0/1", "once Complete 1/1"],
    )


def test_a_statefulset_starts_in_order(cluster: Cluster, api: Api, namespace: str) -> None:
    api.of("v1", "services", namespace).create(headless("db", {"app": "db"}))
    with watching(cluster, api.of("v1", "pods", namespace), GATED) as watch:
        api.of("apps/v1", "statefulsets", namespace).create(workload("StatefulSet", "db", serviceName="db", replicas=2))
        rows = watch.until(r"db-1 1/1 Running 0")
    states = ("0/1 Pending 0", "0/1 ContainerCreating 0", "1/1 Running 0")
    assert rows == [f"db-{number} {state}" for number in range(2) for state in states]


def test_a_deployments_rollout(cluster: Cluster, api: Api, namespace: str) -> None:
    """NAME READY UP-TO-DATE AVAILABLE: never fewer available than 3 of 4 while the new ones come up."""
    deployments = api.of("apps/v1", "deployments", namespace)
    with watching(cluster, deployments, workload("Deployment", "marker", replicas=0, paused=True)) as watch:
        deployments.create(workload("Deployment", "web", replicas=4))
        rows = list(watch.until(r"web 4/4 4 4"))
        numbers = [[int(each) for each in re.findall(r"\d+", row)] for row in rows]
        assert rows[0] == "web 0/4 0 0"
        assert numbers == sorted(numbers), "a first rollout only grows"
        begun = len(rows)
        deployments.patch("web", set_env(TURN="2"), "strategic")
        watch.until(r"web \S+ [0-3] .*")
        after = watch.until(r"web 4/4 4 4")[begun:]
    assert all(int(row.split()[3]) >= 3 for row in after), after
    up_to_date = [int(row.split()[2]) for row in after]
    assert up_to_date[0] <= 1 and up_to_date[-1] == 4
