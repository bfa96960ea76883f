"""What the assembled server knows of its settings: the service range, and the key that signs tokens."""

from __future__ import annotations

import ipaddress

from tests.harness.apiserver import RunningApiServer, running_apiserver

SERVICES = "/api/v1/namespaces/default/services"


async def test_cluster_ips_come_from_the_configured_range() -> None:
    async with running_apiserver(service_range="10.98.0.0/16") as server:
        rest = server.rest()
        own = await rest.get(f"{SERVICES}/kubernetes")
        assert own.json["spec"]["clusterIP"] == "10.98.0.1"
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"ports": [{"port": 80}]},
        }
        made = await rest.post(SERVICES, service)
        assert made.status == 201
        assert ipaddress.ip_address(made.json["spec"]["clusterIP"]) in ipaddress.ip_network("10.98.0.0/16")


async def test_pods_mount_a_token_where_the_server_signs_them(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}
    await rest.post("/api/v1/namespaces/default/serviceaccounts", account)
    spec = {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "busybox"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    made = await rest.post("/api/v1/namespaces/default/pods", pod)
    assert made.status == 201
    (mount,) = made.json["spec"]["containers"][0]["volumeMounts"]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert [volume["name"] for volume in made.json["spec"]["volumes"]] == [mount["name"]]
