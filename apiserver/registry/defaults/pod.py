"""Defaults of pods and pod templates.

Owns everything upstream fills into a PodSpec: containers, probes, ports, volumes, and what only real pods get (requests
from limits, service links, host ports). Called by the pod strategy and by every kind that embeds a template. Hot path.
"""

from collections.abc import Iterable
from typing import Any

from apiserver.registry.defaults.canonical import canonical_quantity
from machinery import quantity

Obj = dict[str, Any]

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_FILE_MODE = 0o644


def default_pod(pod: Obj) -> None:
    """A Pod as a client created it."""
    spec = pod.setdefault("spec", {})
    default_pod_spec(spec)
    for containers in (spec.get("containers"), spec.get("initContainers")):
        for container in containers or ():
            _request_limits(container.get("resources"))
    if "resources" in spec:
        _pod_level_requests(spec)
    if spec.get("enableServiceLinks") is None:
        spec["enableServiceLinks"] = True
    if spec.get("hostNetwork"):
        default_host_ports(spec)
    if status := pod.get("status"):
        mirror_addresses(status)


def mirror_addresses(status: Obj) -> None:
    """podIP and podIPs tell the same; podIP decides where they do not, for kubelets that know only it."""
    addresses = status.get("podIPs")
    if own := status.get("podIP"):
        if not addresses or addresses[0].get("ip") != own:
            status["podIPs"] = [{"ip": own}]
    elif addresses and addresses[0].get("ip"):
        status["podIP"] = addresses[0]["ip"]


def default_template(template: Obj) -> None:
    """A PodTemplateSpec inside a workload."""
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}))


def default_pod_spec(spec: Obj) -> None:
    """What pods and templates share."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if "serviceAccountName" in spec:
        # The deprecated twin follows the current field, and serves as input where only it is given.
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif "serviceAccount" in spec:
        spec["serviceAccountName"] = spec["serviceAccount"]
    for volume in spec.get("volumes") or ():
        default_volume(volume)
    for field in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            _default_container(container)


def pull_policy(image: str) -> str:
    """Always for no tag or `latest`, else IfNotPresent."""
    if "@" in image:
        return "IfNotPresent"
    name = image.rpartition("/")[2]
    _, colon, tag = name.partition(":")
    return "IfNotPresent" if colon and tag != "latest" else "Always"


def _default_container(container: Obj) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("resources", {})
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(container.get("image") or "")
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or ():
        if source := variable.get("valueFrom"):
            default_field_ref(source)
            if (file_key := source.get("fileKeyRef")) is not None:
                file_key.setdefault("optional", False)
    for kind in _PROBES:
        if (probe := container.get(kind)) is not None:
            _default_probe(probe)
    if lifecycle := container.get("lifecycle"):
        for hook in ("postStart", "preStop"):
            if http := (lifecycle.get(hook) or {}).get("httpGet"):
                _default_http_get(http)


def default_field_ref(source: Obj) -> None:
    """fieldRef and resourceFieldRef of variables and of downward API files."""
    if (reference := source.get("fieldRef")) is not None:
        reference.setdefault("apiVersion", "v1")
    if (resource := source.get("resourceFieldRef")) is not None:
        resource.setdefault("divisor", "0")


def _default_http_get(http: Obj) -> None:
    if not http.get("path"):
        http["path"] = "/"
    if not http.get("scheme"):
        http["scheme"] = "HTTP"


def _default_probe(probe: Obj) -> None:
    if http := probe.get("httpGet"):
        _default_http_get(http)
    if (grpc := probe.get("grpc")) is not None:
        grpc.setdefault("service", "")
    probe.setdefault("timeoutSeconds", 1)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("successThreshold", 1)
    probe.setdefault("failureThreshold", 3)


def _request_limits(resources: Obj | None) -> None:
    if not resources or not (limits := resources.get("limits")):
        return
    requests = resources.setdefault("requests", {})
    for name, amount in limits.items():
        requests.setdefault(name, amount)


def _pod_level_requests(spec: Obj) -> None:
    """Pod-level requests: the containers' sum where they ask for the resource, else the pod-level limit."""
    resources = spec["resources"]
    limits = resources.get("limits")
    if not limits:
        return
    sums = _container_requests(spec)
    requests = dict(resources.get("requests") or {})
    for name in ("cpu", "memory"):
        if name in sums:
            requests.setdefault(name, sums[name])
    for name, amount in limits.items():
        requests.setdefault(name, amount)
    resources["requests"] = requests


def _container_requests(spec: Obj) -> dict[str, str]:
    names = {name for container in _all(spec) for name in _requests(container)}
    return {name: str(canonical_quantity(_effective(spec, name))) for name in names}


def _effective(spec: Obj, name: str) -> str:
    """max(sum of containers and sidecars, each init container beside the sidecars before it)."""
    sidecars = peak = 0
    for container in spec.get("initContainers") or ():
        amount = _nano(_requests(container).get(name))
        if container.get("restartPolicy") == "Always":
            sidecars += amount
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + amount)
    total = sidecars + sum(_nano(_requests(container).get(name)) for container in spec.get("containers") or ())
    value = max(total, peak)
    return f"{value // 1000}" if value % 1000 == 0 else f"{value}m"


def _all(spec: Obj) -> Iterable[Obj]:
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()


def _requests(container: Obj) -> Obj:
    found: Obj = (container.get("resources") or {}).get("requests") or {}
    return found


def _nano(amount: Any) -> int:
    """Thousandths of a unit: fine enough for sums of requests."""
    if amount is None:
        return 0
    try:
        return quantity.milli(str(amount))
    except ValueError:
        return 0


def default_host_ports(spec: Obj) -> None:
    """On the host's network a container port is a host port."""
    for container in _all(spec):
        for port in container.get("ports") or ():
            if not port.get("hostPort") and port.get("containerPort"):
                port["hostPort"] = port["containerPort"]


def default_volume(volume: Obj) -> None:
    """One volume; without a source it is an emptyDir."""
    if len(volume) < 2:
        volume["emptyDir"] = {}
        return
    for kind, source in volume.items():
        if kind in _FILES:
            source.setdefault("defaultMode", _FILE_MODE)
            if kind == "downwardAPI":
                for item in source.get("items") or ():
                    default_field_ref(item)
            elif kind == "projected":
                for part in source.get("sources") or ():
                    _default_projection(part)
        elif kind == "hostPath":
            source.setdefault("type", "")
        elif kind == "image":
            if not source.get("pullPolicy"):
                source["pullPolicy"] = pull_policy(source.get("reference") or "")
        elif kind == "ephemeral":
            if template := source.get("volumeClaimTemplate"):
                template.setdefault("metadata", {})
                claim = template.setdefault("spec", {})
                claim.setdefault("volumeMode", "Filesystem")
                claim.setdefault("resources", {})
        elif kind in VOLUME_SOURCES:
            for field, value in VOLUME_SOURCES[kind].items():
                source.setdefault(field, value)


_FILES = frozenset({"secret", "configMap", "downwardAPI", "projected"})
VOLUME_SOURCES: dict[str, Obj] = {
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {"cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": False},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}


def _default_projection(part: Obj) -> None:
    if (token := part.get("serviceAccountToken")) is not None:
        token.setdefault("expirationSeconds", 3600)
    if (downward := part.get("downwardAPI")) is not None:
        for item in downward.get("items") or ():
            default_field_ref(item)
    if (certificate := part.get("podCertificate")) is not None:
        certificate.setdefault("maxExpirationSeconds", 86400)
