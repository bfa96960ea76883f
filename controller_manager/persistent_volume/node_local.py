"""Our own storage: a folder on the node where the claim's first pod runs.

Owns where the folder is and its end. The kubelet of that node makes it when it mounts the volume for the first time;
when the claim is gone, a short-lived pod on that very node removes it, so that the data is deleted where it is, whether
or not this process can see that disk. A volume whose node is gone for good has gone with it.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from api import volumes as rules
from api.models import core_v1
from api.volumes import Volume, annotations_of
from client.backoff import Backoff
from client.controller import Controller
from client.informer import EventHandler, Informer
from controller_manager.environment import Environment, Runnable
from controller_manager.persistent_volume.provisioner import (
    Made,
    Provisioner,
    ProvisionError,
    Request,
    ensure_class,
    storage_class,
)
from machinery import log
from machinery.errors import AlreadyExists, NotFound, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey

NAME: Final = rules.NODE_LOCAL
CLASS: Final = "standard"
HOSTNAME: Final = "kubernetes.io/hostname"
NAMESPACE: Final = "kube-system"
VOLUME_LABEL: Final = "nanokube.io/delete-volume"
IMAGE: Final = "docker.io/library/busybox:latest"
MODES: Final = frozenset(("ReadWriteOnce", rules.ONE_POD))
RETRY: Final = 5.0
_log = log.get(__name__)


def path_of(folder: str, node: str, volume: str) -> str:
    """Where a volume lives; `{node}` in the folder stands for the node's name."""
    return f"{folder.replace('{node}', node)}/{volume}"


def host_of(volume: Volume) -> str:
    """The host that the volume is on, as its affinity says; "" when it says nothing of the kind."""
    affinity = volume.spec.nodeAffinity
    for term in (affinity.required.nodeSelectorTerms if affinity is not None and affinity.required else None) or ():
        for each in term.matchExpressions or ():
            if each.key == HOSTNAME and each.operator == "In" and len(each.values or ()) == 1:
                return str(each.values[0])  # type: ignore[index]  # counted above
    return ""


def is_ready(node: core_v1.Node) -> bool:
    conditions = (node.status.conditions if node.status is not None else None) or ()
    cordoned = node.spec is not None and bool(node.spec.unschedulable)
    return not cordoned and any(each.type == "Ready" and each.status == "True" for each in conditions)


def remover(volume: str, node: str, path: str) -> dict[str, Any]:
    """The pod that removes a volume's folder."""
    folder, _, name = path.rpartition("/")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"delete-{volume}", "namespace": NAMESPACE, "labels": {VOLUME_LABEL: volume}},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": "delete",
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["rm", "-rf", f"/volumes/{name}"],
                    "volumeMounts": [{"name": "volumes", "mountPath": "/volumes"}],
                }
            ],
            "volumes": [{"name": "volumes", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}],
        },
    }


class NodeLocal:
    """A `Driver`; reads listers, writes only the pods that delete."""

    name = NAME

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._folder = env.options.node_volume_folder
        self._nodes: Informer[core_v1.Node] = env.informers.informer(core_v1.Node)
        self._volumes: Informer[Volume] = env.informers.informer(Volume)
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod)

    def follow(self, wake: Callable[[str], None]) -> None:
        def tell(pod: core_v1.Pod) -> None:
            volume = (pod.metadata.labels or {}).get(VOLUME_LABEL)
            if volume and pod.metadata.namespace == NAMESPACE:
                wake(volume)

        self._pods.add_handler(EventHandler(tell, lambda _, new: tell(new), tell))

    async def make(self, request: Request) -> Made:
        claim = request.claim
        if rules.mode_of(claim) != "Filesystem":
            raise ProvisionError("only volumeMode Filesystem is supported")
        if not set(claim.spec.accessModes or ()) <= MODES:
            raise ProvisionError("only the access modes ReadWriteOnce and ReadWriteOncePod are supported")
        if claim.spec.selector is not None:
            raise ProvisionError("claim Selector is not supported")
        if claim.spec.dataSource is not None or claim.spec.dataSourceRef is not None:
            raise ProvisionError("volumes with a data source are not supported")
        node = request.node or self._any_node(request)
        name = node.metadata.name or ""
        host = (node.metadata.labels or {}).get(HOSTNAME, name)
        expression = {"key": HOSTNAME, "operator": "In", "values": [host]}
        return Made(
            {"local": {"path": path_of(self._folder, name, request.name)}},
            {"nodeSelectorTerms": [{"matchExpressions": [expression]}]},
            rules.requested(claim),
        )

    def _any_node(self, request: Request) -> core_v1.Node:
        """For a class that does not wait for a consumer: the ready node with the fewest of our volumes."""
        allowed = [
            node
            for node in self._nodes.lister.list()
            if is_ready(node) and rules.topology_allows(request.storage_class, node.metadata.labels or {})
        ]
        if not allowed:
            raise ProvisionError("there is no ready node for it")
        used = Counter(
            host_of(each)
            for each in self._volumes.lister.list()
            if annotations_of(each).get(rules.PROVISIONED_BY) == NAME
        )
        return min(allowed, key=lambda node: (used[node.metadata.name or ""], node.metadata.name or ""))

    async def grow(self, volume: Volume, size: int) -> None:
        """A folder has no size of its own."""

    async def delete(self, volume: Volume) -> bool:
        host, local = host_of(volume), volume.spec.local
        if local is None:
            raise ProvisionError("the volume is not a folder on a node")
        node = next(
            (
                each
                for each in self._nodes.lister.list()
                if host in ((each.metadata.labels or {}).get(HOSTNAME), each.metadata.name)
            ),
            None,
        )
        name = volume.metadata.name or ""
        pod = self._pods.lister.get(ObjectKey(NAMESPACE, f"delete-{name}"))
        if node is None:
            _log.info("Forgot the volume of a node that is gone", extra=kv(volume=name, node=host))
            await self._drop(pod)
            return True
        phase = pod.status.phase if pod is not None and pod.status is not None else None
        if phase == "Succeeded":
            await self._drop(pod)
            return True
        if phase == "Failed":
            await self._drop(pod)
            raise ProvisionError(f"removing {local.path} on node {node.metadata.name} failed")
        if pod is None:
            try:
                await self._client.create(remover(name, node.metadata.name or "", local.path))
            except AlreadyExists:
                return False
        return False

    async def _drop(self, pod: core_v1.Pod | None) -> None:
        if pod is None or pod.metadata.deletionTimestamp is not None:
            return
        try:
            await self._client.delete(core_v1.Pod, pod.metadata.name or "", NAMESPACE, uid=pod.metadata.uid)
        except NotFound:
            return


class DefaultClass:
    """Makes the class `standard` once per start, as soon as the server takes it; one that is there is left as it is."""

    name = "default-storage-class"

    def __init__(self, env: Environment) -> None:
        self._env = env

    async def run(self) -> None:
        backoff = Backoff(initial=0.1, cap=RETRY)
        while True:
            try:
                await ensure_class(self._env, storage_class(CLASS, NAME))
            except StatusError as error:
                _log.debug("Failed to make the default storage class", extra=kv(error=error.message))
                await self._env.clock.sleep(backoff.next())
            else:
                return


def build(env: Environment) -> Sequence[Runnable]:
    """Nothing where no folder is given."""
    if not env.options.node_volume_folder:
        return []
    loop: Controller = Provisioner(env, NodeLocal(env)).controller
    return [loop, DefaultClass(env)]
