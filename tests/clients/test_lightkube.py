"""lightkube: typed models, lists over pages, watch, server-side apply, subresources, wait, logs, generic resources."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightkube import ApiError, Client, KubeConfig
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.autoscaling_v1 import ScaleSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Pod
from lightkube.types import PatchType

from tests.conformance.objects import workload

# The client leaves sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def client(kubeconfig: Path) -> Client:
    return Client(config=KubeConfig.from_file(str(kubeconfig)), field_manager="lightkube-tests")


def config_map(name: str, namespace: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace, labels={"made": "by-lightkube"}), data=data)


def test_verbs(client: Client, namespace: str) -> None:
    made = client.create(config_map("settings", namespace, a="1"))
    assert made.metadata and made.metadata.uid
    made.data = {"a": "2"}
    assert client.replace(made).data == {"a": "2"}
    with pytest.raises(ApiError) as stale:
        client.replace(made)
    assert (stale.value.status.code, stale.value.status.reason) == (409, "Conflict")
    patched = client.patch(ConfigMap, "settings", {"data": {"b": "3"}}, namespace=namespace)
    assert patched.data == {"a": "2", "b": "3"}
    merged = client.patch(ConfigMap, "settings", {"data": {"a": None}}, namespace=namespace, patch_type=PatchType.MERGE)
    assert merged.data == {"b": "3"}
    client.delete(ConfigMap, "settings", namespace=namespace)
    with pytest.raises(ApiError) as gone:
        client.get(ConfigMap, "settings", namespace=namespace)
    assert gone.value.status.reason == "NotFound"


def test_lists_page_and_watch_goes_on(client: Client, namespace: str) -> None:
    for number in range(5):
        client.create(config_map(f"many-{number}", namespace))
    listed = client.list(ConfigMap, namespace=namespace, labels={"made": "by-lightkube"}, chunk_size=2)
    names = [each.metadata.name for each in listed if each.metadata]
    assert names == [f"many-{number}" for number in range(5)]
    version = listed.resourceVersion
    client.patch(ConfigMap, "many-0", {"data": {"new": "yes"}}, namespace=namespace)
    client.deletecollection(ConfigMap, namespace=namespace)
    seen = []
    for kind, obj in client.watch(
        ConfigMap, namespace=namespace, labels={"made": "by-lightkube"}, resource_version=version, server_timeout=10
    ):
        assert obj.metadata
        seen.append((kind, obj.metadata.name))
        if len(seen) == 6:
            break
    assert seen[0] == ("MODIFIED", "many-0")
    assert sorted(seen[1:]) == [("DELETED", f"many-{number}") for number in range(5)]


def test_server_side_apply_and_conflict(client: Client, namespace: str) -> None:
    assert client.apply(config_map("owned", namespace, a="1")).data == {"a": "1"}
    with pytest.raises(ApiError) as conflict:
        client.apply(config_map("owned", namespace, a="2"), field_manager="other")
    assert conflict.value.status.code == 409 and 'conflict with "lightkube-tests"' in str(conflict.value)
    assert client.apply(config_map("owned", namespace, a="2"), field_manager="other", force=True).data == {"a": "2"}


def test_a_deployment_by_its_subresources(client: Client, namespace: str) -> None:
    body = workload("Deployment", "web", replicas=1)
    body["metadata"]["namespace"] = namespace
    made = Deployment.from_dict(body)
    assert isinstance(made, Deployment)
    client.create(made)
    client.wait(Deployment, "web", for_conditions=["Available"], namespace=namespace)
    scale = Deployment.Scale(metadata=ObjectMeta(name="web", namespace=namespace), spec=ScaleSpec(replicas=2))
    assert client.replace(scale, "web", namespace=namespace).spec == ScaleSpec(replicas=2)
    assert client.get(Deployment.Status, "web", namespace=namespace).status is not None
    pods = client.list(Pod, namespace=namespace, labels={"app": "web"}, fields={"status.phase": "Running"})
    assert len(list(pods)) >= 1


def test_logs(client: Client, talker: tuple[str, str]) -> None:
    namespace, name = talker
    assert [line.strip() for line in client.log(name, namespace=namespace)] == ["one", "two"]
    assert [line.strip() for line in client.log(name, namespace=namespace, tail_lines=1)] == ["two"]


def test_generic_resources(client: Client, namespace: str) -> None:
    lease = create_namespaced_resource("coordination.k8s.io", "v1", "Lease", "leases")
    made = lease(metadata=ObjectMeta(name="turn", namespace=namespace), spec={"holderIdentity": "me"})
    client.create(made)
    assert client.get(lease, "turn", namespace=namespace)["spec"]["holderIdentity"] == "me"
    assert namespace in [each.metadata.name for each in client.list(Namespace) if each.metadata]
