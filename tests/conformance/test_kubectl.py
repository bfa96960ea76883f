"""sig-cli: what the stock kubectl does with the cluster."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.objects import SERVE, container, controller, pod, wait_ready, workload
from tests.harness.api import Api, Obj
from tests.harness.nanokube import Cluster, eventually, kubectl

KUBECTL = "[sig-cli] Kubectl client Kubectl "


def service(name: str, port: int = 80) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": 8080}]},
    }


class Kubectl:
    """kubectl in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def __call__(self, *arguments: str, stdin: Any = None, check: bool = True) -> str:
        text = stdin if stdin is None or isinstance(stdin, str) else json.dumps(stdin)
        command, *rest = arguments
        return self.cluster.kubectl(command, "-n", self.namespace, *rest, stdin=text, check=check)


@pytest.fixture
def cli(cluster: Cluster, namespace: str) -> Kubectl:
    return Kubectl(cluster, namespace)


@pytest.fixture
def primary(api: Api, namespace: str) -> str:
    """A ReplicationController called agnhost-primary with one ready pod, whose name this is."""
    ports = [{"name": "server", "containerPort": 8080}]
    made = controller("agnhost-primary", main=container(SERVE, ports=ports), replicas=1)
    api.of("v1", "replicationcontrollers", namespace).create(made)
    (found,) = wait_ready(api, namespace, {"app": "agnhost-primary"}, 1)
    return str(found["metadata"]["name"])


@pytest.mark.conformance(KUBECTL + "api-versions should check if v1 is in available api versions [Conformance]")
def test_api_versions(cli: Kubectl) -> None:
    assert "v1" in cli.cluster.kubectl("api-versions").splitlines()


@pytest.mark.conformance(
    KUBECTL + "cluster-info should check if Kubernetes control plane services is included in cluster-info [Conformance]"
)
def test_cluster_info(cli: Kubectl, api: Api) -> None:
    told = re.sub(r"\x1b\[[0-9;]*m", "", cli.cluster.kubectl("cluster-info"))
    assert f"Kubernetes control plane is running at https://{api.host}:{api.port}" in told


@pytest.mark.conformance(KUBECTL + "version should check is all data is printed [Conformance]")
def test_version(cli: Kubectl) -> None:
    told = cli.cluster.kubectl("version")
    assert re.search(r"Client Version: v\d+\.\d+\.\d+", told)
    assert re.search(r"Server Version: v1\.36\.\d+", told)
    server = json.loads(cli.cluster.kubectl("version", "-o", "json"))["serverVersion"]
    assert {"gitCommit", "gitTreeState", "buildDate", "compiler"} <= set(server)
    assert all(server[field] for field in ("major", "minor", "gitVersion", "goVersion", "platform"))


@pytest.mark.conformance(
    KUBECTL + "describe should check if kubectl describe prints relevant information for rc and pods [Conformance]"
)
def test_describe(cli: Kubectl, primary: str, namespace: str) -> None:
    cli("apply", "-f", "-", stdin=service("agnhost-primary"))

    def has(told: str, *rows: tuple[str, str]) -> None:
        for label, value in rows:
            assert re.search(rf"^ *{re.escape(label)}.*{re.escape(value)}", told, re.MULTILINE), (label, value, told)

    has(
        cli("describe", "pod", primary),
        ("Name:", primary),
        ("Namespace:", namespace),
        ("Node:", "worker-"),
        ("Labels:", "app=agnhost-primary"),
        ("Status:", "Running"),
        ("IP:", "10."),
        ("Controlled By:", "ReplicationController/agnhost-primary"),
        ("Image:", "busybox"),
        ("State:", "Running"),
        ("QoS Class:", "BestEffort"),
    )
    has(
        cli("describe", "rc", "agnhost-primary"),
        ("Name:", "agnhost-primary"),
        ("Namespace:", namespace),
        ("Selector:", "app=agnhost-primary"),
        ("Labels:", "app=agnhost-primary"),
        ("Replicas:", "1 current / 1 desired"),
        ("Pods Status:", "1 Running / 0 Waiting / 0 Succeeded / 0 Failed"),
        ("Image:", "busybox"),
        ("Events:", ""),
    )
    has(
        cli("describe", "service", "agnhost-primary"),
        ("Name:", "agnhost-primary"),
        ("Namespace:", namespace),
        ("Selector:", "app=agnhost-primary"),
        ("Type:", "ClusterIP"),
        ("IP:", "10."),
        ("Port:", "<unset>"),
        ("Endpoints:", ":8080"),
        ("Session Affinity:", "None"),
    )
    has(
        cli.cluster.kubectl("describe", "node", "worker-1"),
        ("Name:", "worker-1"),
        ("Labels:", "kubernetes.io/"),
        ("Annotations:", ""),
        ("CreationTimestamp:", ""),
        ("Conditions:", ""),
        ("Type", "Status"),
        ("Addresses:", ""),
        ("Capacity:", ""),
        ("Kernel Version:", ""),
        ("Container Runtime Version:", "nanokube://"),
        ("Kubelet Version:", "v1."),
        ("Non-terminated Pods:", "in total"),
    )
    has(cli.cluster.kubectl("describe", "namespace", namespace), ("Name:", namespace), ("Status:", "Active"))


@pytest.mark.conformance(KUBECTL + "diff should check if kubectl diff finds a difference for Deployments [Conformance]")
def test_diff(cli: Kubectl) -> None:
    made = workload("Deployment", "httpd", replicas=1)
    cli("create", "-f", "-", stdin=made)
    same = cli("diff", "-f", "-", stdin=json.loads(cli("get", "deployment", "httpd", "-o", "json")))
    assert same == ""
    made["spec"]["template"]["spec"]["containers"][0]["image"] = "busybox:other"
    told = cli("diff", "-f", "-", stdin=made, check=False)
    assert re.search(r"^-\s+- .*image: busybox$|^-\s+image: busybox$", told, re.MULTILINE), told
    assert re.search(r"^\+\s+(- )?image: busybox:other$", told, re.MULTILINE), told


@pytest.mark.conformance(KUBECTL + "expose should create services for rc [Conformance]")
def test_expose(cli: Kubectl, api: Api, namespace: str, primary: str) -> None:
    def endpoints(name: str) -> list[tuple[str, int]]:
        slices = api.of("discovery.k8s.io/v1", "endpointslices", namespace).list(
            labelSelector=f"kubernetes.io/service-name={name}"
        )
        return [
            (each["targetRef"]["name"], port["port"])
            for one in slices
            for each in one.get("endpoints") or ()
            for port in one["ports"]
        ]

    assert (
        cli("expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", "--target-port=8080")
        == "service/rm2 exposed\n"
    )
    cli("expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=8080")
    for name, port in (("rm2", 1234), ("rm3", 2345)):
        assert api.of("v1", "services", namespace).get(name)["spec"]["ports"][0]["port"] == port
        eventually(lambda name=name: endpoints(name) == [(primary, 8080)], f"endpoints of {name}")  # type: ignore[misc]


@pytest.mark.conformance(KUBECTL + "label should update the label on a resource [Conformance]")
def test_label(cli: Kubectl, primary: str) -> None:
    assert cli("label", "pods", primary, "testing-label=testing-label-value") == f"pod/{primary} labeled\n"
    assert "testing-label-value" in cli("get", "pod", primary, "-L", "testing-label")
    assert cli("label", "pods", primary, "testing-label-") == f"pod/{primary} unlabeled\n"
    assert "testing-label-value" not in cli("get", "pod", primary, "-L", "testing-label")


@pytest.mark.conformance(KUBECTL + "patch should add annotations for pods in rc [Conformance]")
def test_patch(cli: Kubectl, primary: str) -> None:
    patched = cli("patch", "pod", primary, "-p", '{"metadata":{"annotations":{"x":"y"}}}')
    assert patched == f"pod/{primary} patched\n"
    assert json.loads(cli("get", "pod", primary, "-o", "json"))["metadata"]["annotations"]["x"] == "y"


@pytest.mark.conformance(KUBECTL + "replace should update a single-container pod's image [Conformance]")
def test_replace(cli: Kubectl) -> None:
    cli("run", "httpd", "--image=busybox:old", "--labels=run=httpd", "--command", "--", "sleep", "3600")
    found = json.loads(cli("get", "pod", "httpd", "-o", "json"))
    found["spec"]["containers"][0]["image"] = "busybox"
    del found["metadata"]["resourceVersion"]  # its status goes on changing
    assert cli("replace", "-f", "-", stdin=found) == "pod/httpd replaced\n"
    image = ("get", "pod", "httpd", "-o", "jsonpath={.spec.containers[0].image}")
    assert cli(*image) == "busybox"
    found["spec"]["hostNetwork"] = True
    assert "Forbidden: pod updates may not change fields other than" in cli(
        "replace", "-f", "-", stdin=found, check=False
    )


@pytest.mark.conformance(KUBECTL + "run pod should create a pod from an image when restart is Never [Conformance]")
def test_run(cli: Kubectl) -> None:
    told = cli("run", "httpd", "--restart=Never", "--pod-running-timeout=2m0s", "--image=busybox")
    assert told == "pod/httpd created\n"
    spec = json.loads(cli("get", "pod", "httpd", "-o", "json"))["spec"]
    assert (spec["containers"][0]["image"], spec["restartPolicy"]) == ("busybox", "Never")


@pytest.mark.conformance(KUBECTL + "server-side dry-run should check if kubectl can dry-run update Pods [Conformance]")
def test_server_side_dry_run(cli: Kubectl) -> None:
    cli("run", "httpd", "--image=busybox", "--labels=run=httpd", "--command", "--", "sleep", "3600")
    patch = '{"spec":{"containers":[{"name":"httpd","image":"busybox:other"}]}}'
    assert cli("patch", "pod", "httpd", "-p", patch, "--dry-run=server") == "pod/httpd patched\n"
    assert cli("get", "pod", "httpd", "-o", "jsonpath={.spec.containers[0].image}") == "busybox"


@contextlib.contextmanager
def proxy(cluster: Cluster, *arguments: str) -> Iterator[str]:
    """`kubectl proxy`, listening; yields what it says it serves on."""
    process = subprocess.Popen(
        [kubectl(), "proxy", *arguments], env=cluster.environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Starting to serve on "), line
        yield line.removeprefix("Starting to serve on ").strip()
    finally:
        process.terminate()
        process.communicate(timeout=10)


def fetch(connection: http.client.HTTPConnection, path: str) -> Any:
    with contextlib.closing(connection):
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())


@pytest.mark.conformance("[sig-cli] Kubectl client Proxy server should support proxy with --port 0 [Conformance]")
def test_proxy_on_any_port(cluster: Cluster) -> None:
    with proxy(cluster, "--port=0", "--disable-filter=true") as address:
        host, port = address.split(":")
        assert fetch(http.client.HTTPConnection(host, int(port), timeout=10), "/api/")["kind"] == "APIVersions"


@pytest.mark.conformance("[sig-cli] Kubectl client Proxy server should support --unix-socket=/path [Conformance]")
def test_proxy_on_a_socket(cluster: Cluster, tmp_path: Path) -> None:
    path = str(tmp_path / "test")
    with proxy(cluster, f"--unix-socket={path}"):
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(path)
        assert fetch(connection, "/api/")["kind"] == "APIVersions"


@pytest.mark.conformance(
    "[sig-cli] Kubectl client Update Demo should create and stop a replication controller [Conformance]",
    "[sig-cli] Kubectl client Update Demo should scale a replication controller [Conformance]",
)
def test_update_demo(cli: Kubectl, api: Api, namespace: str) -> None:
    labels = {"name": "update-demo"}
    cli("create", "-f", "-", stdin=controller("update-demo-nautilus", labels, container(SERVE), replicas=2))

    def served(count: int) -> None:
        for each in wait_ready(api, namespace, labels, count):
            name = each["metadata"]["name"]
            raw = f"/api/v1/namespaces/{namespace}/pods/{name}:8080/proxy/index.html"
            assert cli("get", "--raw", raw).strip() == name

    served(2)
    for count in (1, 2):
        cli("scale", "rc", "update-demo-nautilus", f"--replicas={count}", "--timeout=5m")
        served(count)
    go = ("go-template", "{{range .items}}{{.metadata.name}} {{end}}")
    assert len(cli("get", "pods", "-l", "name=update-demo", "-o", "=".join(go)).split()) == 2
    cli("delete", "--grace-period=0", "--force", "rc", "update-demo-nautilus")
    wait_ready(api, namespace, labels, 0)
    assert cli("get", "rc,svc", "-l", "name=update-demo", "--no-headers", check=False).strip().endswith("namespace.")


@pytest.mark.conformance(
    "[sig-cli] Kubectl client Guestbook application should create and stop a working application [Conformance]"
)
def test_guestbook(cli: Kubectl, api: Api, namespace: str) -> None:
    """A backend that keeps entries and a frontend that reaches it through its Service."""
    page = "#!/bin/sh\\necho Content-Type: text/plain\\necho\\n"
    stay = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"

    def program(cgi: str) -> list[str]:
        setup = f"mkdir -p /tmp/www/cgi-bin; printf '{page}{cgi}\\n' > /tmp/www/cgi-bin/guestbook"
        return ["sh", "-c", f"{setup}; chmod +x /tmp/www/cgi-bin/guestbook; httpd -p 8080 -h /tmp/www; {stay}"]

    backend = 'test -z "$QUERY_STRING" || echo $QUERY_STRING >> /tmp/entries; cat /tmp/entries'
    frontend = 'wget -q -O - "http://$BACKEND_SERVICE_HOST:6379/cgi-bin/guestbook?$QUERY_STRING"'
    tiers = [
        service("backend", 6379),
        service("frontend"),
        workload("Deployment", "backend", main=container(program(backend)), replicas=1),
        workload("Deployment", "frontend", main=container(program(frontend)), replicas=3),
    ]
    cli("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": tiers[:2]})
    cli("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": tiers[2:]})
    wait_ready(api, namespace, {"app": "backend"}, 1)
    wait_ready(api, namespace, {"app": "frontend"}, 3)
    path = f"/api/v1/namespaces/{namespace}/services/frontend/proxy/cgi-bin/guestbook"
    eventually(lambda: "TestEntry" in api.raw("GET", f"{path}?TestEntry").body.decode(), "the entry to be kept")
    assert "TestEntry" in api.raw("GET", path).body.decode()
    cli("delete", "--grace-period=0", "--force", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": tiers})
    for name in ("backend", "frontend"):
        wait_ready(api, namespace, {"app": name}, 0)


@pytest.mark.conformance("[sig-cli] Kubectl logs logs should be able to retrieve and filter logs [Conformance]")
def test_logs(cli: Kubectl, api: Api, namespace: str) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo 2026-line-$i; done; sleep 2; echo last; "
    script += "trap 'exit 0' TERM; sleep 3600 & wait"
    api.of("v1", "pods", namespace).create(pod("logs", main=container(["sh", "-c", script])))
    eventually(lambda: len(cli("logs", "logs", check=False).splitlines()) == 11, "eleven lines")
    lines = cli("logs", "logs", "main").splitlines()
    assert lines[:2] == ["2026-line-1", "2026-line-2"] and lines[-1] == "last"
    assert cli("logs", "logs", "main", "--tail=1") == "last\n"
    assert cli("logs", "logs", "main", "--limit-bytes=1") == "2"
    stamped = cli("logs", "logs", "main", "--tail=1", "--timestamps")
    stamp, text = stamped.strip().split(" ")
    assert text == "last" and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", stamp)
    assert cli("logs", "logs", "main", "--since=24h").splitlines() == lines
    assert cli("logs", "logs", "main", f"--since-time={stamp}") == "last\n"
    first = cli("logs", "logs", "main", "--timestamps").splitlines()[0].split(" ")[0]
    assert cli("logs", "logs", "main", f"--since-time={first}").splitlines() == lines
