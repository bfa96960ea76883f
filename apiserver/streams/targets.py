"""Where a pod's streams lead: which container, which kubelet.

Owns: the choice of a container (`plan_container`), the address of a node's kubelet, the channels to kubelets, one per
address, kept open, and what a kubelet's failure means for the client. Never carries data. Called by all streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.registry.context import RequestContext
from apiserver.registry.store import Registry
from apiserver.rest import query
from apiserver.rest.responses import PlainRefusal
from machinery.errors import BadRequest, NotFound, ServiceUnavailable, StatusError
from machinery.tls import KeyPair

if TYPE_CHECKING:
    import grpc.aio

    from apiserver.rest.request import Request

Obj = Mapping[str, Any]
CHANNEL_LIMIT = 1024
OPEN_SECONDS = 30.0  # real: a runtime that has not opened a stream by then is stuck


class Target(NamedTuple):
    """A container and the kubelet that has it; `address` is empty while the pod has no node."""

    container: str
    address: str


def plan_container(pod: Obj, wanted: str) -> str:
    """The container a stream is for. Raises BadRequest."""
    name, spec = pod["metadata"]["name"], pod.get("spec") or {}
    groups = {
        key: [container["name"] for container in spec.get(key) or ()]
        for key in ("containers", "initContainers", "ephemeralContainers")
    }
    if wanted:
        if not any(wanted in names for names in groups.values()):
            raise BadRequest(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(groups["containers"]) == 1 and not groups["initContainers"] and not groups["ephemeralContainers"]:
        return str(groups["containers"][0])
    text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(groups['containers'])}]"
    if groups["initContainers"]:
        text += f" or one of the init containers: [{' '.join(groups['initContainers'])}]"
    if groups["ephemeralContainers"]:
        text += f" or one of the ephemeral containers: [{' '.join(groups['ephemeralContainers'])}]"
    raise BadRequest(text)


_KINDS = {"exec": "PodExecOptions", "attach": "PodAttachOptions", "portforward": "PodPortForwardOptions"}


def connect_options(plural: str, subresource: str, given: query.Query, path: str = "") -> dict[str, Any]:
    """What admission is shown of a request to connect: its options as an object of upstream's kind."""
    kind = _KINDS.get(subresource) or {"pods": "Pod", "services": "Service"}.get(plural, "Node") + "ProxyOptions"
    options: dict[str, Any] = {"kind": kind, "apiVersion": "v1"}
    if subresource == "portforward":
        ports = [int(port) for text in given.get("ports", ()) for port in text.split(",") if port.isdecimal()]
        return {**options, "ports": ports} if ports else options
    if subresource not in _KINDS:
        return {**options, "path": path} if path else options
    for flag in ("stdin", "stdout", "stderr", "tty"):
        if query.flag(given, flag):
            options[flag] = True
    if container := query.text(given, "container"):
        options["container"] = container
    if subresource == "exec" and given.get("command"):
        options["command"] = list(given["command"])
    return options


def kubelet_address(node: Obj) -> str:
    """`host:port` of a node's kubelet. Raises ServiceUnavailable while the node has not told it."""
    status = node.get("status") or {}
    addresses = {entry.get("type"): entry.get("address") for entry in status.get("addresses") or ()}
    host = addresses.get("InternalIP") or addresses.get("Hostname")
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
    if not host or not port:
        raise ServiceUnavailable(f"node {node['metadata']['name']} has not reported the address of its kubelet")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def dial_failure(address: str, details: str) -> StatusError:
    """A connection that could not be made, in the words of the original."""
    lowered = details.lower()
    for sign, why in (
        ("refused", "connect: connection refused"),
        ("no route", "connect: no route to host"),
        ("unreachable", "connect: network is unreachable"),
        ("time", "i/o timeout"),
    ):
        if sign in lowered:
            details = why
            break
    return StatusError(f"error dialing backend: dial tcp {address}: {details}", code=500, reason="")


def failure(error: grpc.aio.AioRpcError, address: str) -> StatusError:
    """A failed call to a kubelet as the client's error: the kubelet's own Status if it sent one."""
    import grpc

    from machinery.grpc import STATUS_KEY, status_of

    told = any(key == STATUS_KEY for key, _ in error.trailing_metadata() or ())
    if not told and error.code() is grpc.StatusCode.UNAVAILABLE:
        return dial_failure(address, error.details() or "")
    if not told:  # what the library says of itself helps nobody
        return StatusError(f"stream to the kubelet at {address} ended without a status", code=500)
    return status_of(error)


def refusal(error: Any, address: str) -> StatusError:
    """A stream that a kubelet did not open. Its words go to the client bare: kubectl puts its own before them."""
    found = failure(error, address)
    if found.reason:
        return PlainRefusal(found.message, code=found.code)
    return found


async def opened(call: Any, opening: Any) -> None:
    """Wait until the kubelet has opened a stream (it sends its metadata then). Raises the call's RpcError."""
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            await call.write(opening)
            await call.initial_metadata()
    except TimeoutError as exc:
        raise ServiceUnavailable("the kubelet did not open the stream in time") from exc
    if call.done():
        # Already over: either refused, or so short that its end came with its beginning.
        code = await call.code()
        if code.value[0] != 0:
            await call.read()


class Kubelets:
    """Finds targets and keeps channels."""

    def __init__(self, registry: Registry, pair: KeyPair | None) -> None:
        self._registry = registry
        self._pair = pair
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def admit(self, request: Request) -> None:
        """Admission of a request to connect. Raises what refuses it."""
        info = request.info
        store = self._registry.resource(info.group, info.version, info.resource)
        options = connect_options(info.resource, info.subresource, request.query, info.rest)
        await store.connect(request.context(), request.namespace, info.name, info.subresource, options)

    async def target(self, namespace: str, pod_name: str, container: str, *, need_node: bool = True) -> Target:
        """Raises NotFound, BadRequest, ServiceUnavailable."""
        pod = await self._get("pods", namespace, pod_name)
        chosen = plan_container(pod, container)
        node_name = (pod.get("spec") or {}).get("nodeName", "")
        if not node_name:
            if need_node:
                raise BadRequest(f"pod {pod_name} does not have a host assigned")
            return Target(chosen, "")
        return Target(chosen, await self._address(pod_name, node_name))

    async def address(self, namespace: str, pod_name: str) -> str:
        """The kubelet of a pod. Raises NotFound, BadRequest, ServiceUnavailable."""
        node_name = ((await self._get("pods", namespace, pod_name)).get("spec") or {}).get("nodeName", "")
        if not node_name:
            raise BadRequest(f"pod {pod_name} does not have a host assigned")
        return await self._address(pod_name, node_name)

    async def _address(self, pod_name: str, node_name: str) -> str:
        try:
            node = await self._get("nodes", "", node_name)
        except NotFound as exc:
            raise ServiceUnavailable(f"node {node_name} of pod {pod_name} does not exist") from exc
        return kubelet_address(node)

    async def _get(self, plural: str, namespace: str, name: str) -> Obj:
        raw = await self._registry.resource("", "v1", plural).get(RequestContext(SYSTEM_API_SERVER), namespace, name)
        found: Obj = msgspec.json.decode(raw)
        return found

    def stub(self, address: str) -> Any:
        """The KubeletService behind an address."""
        from machinery.grpc import channel
        from proto.kubelet.v1 import kubelet_pb2_grpc

        found = self._channels.get(address)
        if found is None:
            if len(self._channels) >= CHANNEL_LIMIT:  # addresses of nodes that are long gone
                self._channels.clear()
            found = self._channels[address] = channel(address, self._pair)
        return kubelet_pb2_grpc.KubeletServiceStub(found)

    async def close(self) -> None:
        channels, self._channels = list(self._channels.values()), {}
        await asyncio.gather(*(found.close() for found in channels))
