"""APIServices as values, and the judgements about them that need no connection.

Owns: the reading of an APIService object, which addresses its Service has, and the conditions that follow from these
objects alone. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Obj = Mapping[str, Any]

API_SERVICES = ("apiregistration.k8s.io", "v1", "apiservices")
AVAILABLE = "Available"
AUTOMANAGED = "kube-aggregator.kubernetes.io/automanaged"


class ServiceRef(NamedTuple):
    """`spec.service` of an APIService."""

    namespace: str
    name: str
    port: int

    @property
    def host(self) -> str:
        """What the backend's certificate must be for."""
        return f"{self.name}.{self.namespace}.svc"


class Verdict(NamedTuple):
    """The Available condition that was found."""

    status: str
    reason: str
    message: str


LOCAL = Verdict("True", "Local", "Local APIServices are always available")
PASSED = Verdict("True", "Passed", "all checks passed")


@dataclass(frozen=True)
class ApiService:
    """One APIService. `service` is None for what this server answers itself."""

    name: str
    group: str
    version: str
    service: ServiceRef | None = None
    ca: str = ""  # base64 of PEM, as in the object
    insecure: bool = False
    group_priority: int = 0
    version_priority: int = 0
    condition: Verdict | None = None
    automanaged: str = ""

    @property
    def available(self) -> bool:
        return self.condition is not None and self.condition.status == "True"

    @property
    def key(self) -> tuple[str, str]:
        return self.group, self.version

    @property
    def path(self) -> str:
        """Where its resources lie."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


def read(obj: Obj) -> ApiService:
    """An APIService object, which has been validated when it was written."""
    spec, meta = obj.get("spec") or {}, obj["metadata"]
    service = spec.get("service")
    conditions = (obj.get("status") or {}).get("conditions") or ()
    found = next((each for each in conditions if each.get("type") == AVAILABLE), None)
    return ApiService(
        name=meta["name"],
        group=spec.get("group") or "",
        version=spec.get("version") or "",
        service=ServiceRef(service["namespace"], service["name"], service.get("port") or 443) if service else None,
        ca=spec.get("caBundle") or "",
        insecure=bool(spec.get("insecureSkipTLSVerify")),
        group_priority=spec.get("groupPriorityMinimum") or 0,
        version_priority=spec.get("versionPriority") or 0,
        condition=Verdict(found["status"], found.get("reason") or "", found.get("message") or "") if found else None,
        automanaged=(meta.get("labels") or {}).get(AUTOMANAGED) or "",
    )


def plan_condition(status: Obj, verdict: Verdict, now: str) -> dict[str, Any]:
    """The status with this verdict; the transition time moves only with the condition's status."""
    conditions = [dict(each) for each in status.get("conditions") or ()]
    told = {"status": verdict.status, "reason": verdict.reason, "message": verdict.message}
    for each in conditions:
        if each.get("type") == AVAILABLE:
            if each.get("status") != verdict.status:
                each["lastTransitionTime"] = now
            each.update(told)
            return {**status, "conditions": conditions}
    conditions.append({"type": AVAILABLE, "lastTransitionTime": now, **told})
    return {**status, "conditions": conditions}


def plan_missing(ref: ServiceRef, service: Obj | None, slices: Iterable[Obj]) -> Verdict | None:
    """Why the Service cannot lead anywhere, or None when a backend may be asked."""
    where = f'service/{ref.name} in "{ref.namespace}"'
    if service is None:
        return Verdict("False", "ServiceNotFound", f"{where} is not present")
    spec = service.get("spec") or {}
    if (spec.get("type") or "ClusterIP") != "ClusterIP":
        return None
    port = next((each for each in spec.get("ports") or () if each.get("port") == ref.port), None)
    if port is None:
        return Verdict("False", "ServicePortError", f"{where} is not listening on port {ref.port}")
    known = list(slices)
    if not known:
        return Verdict("False", "EndpointsNotFound", f"cannot find endpointslices for {where}")
    if not plan_backends(ref, service, known):
        name = port.get("name") or ""
        return Verdict(
            "False", "MissingEndpoints", f'endpointslices for {where} have no addresses with port name "{name}"'
        )
    return None


def plan_backends(ref: ServiceRef, service: Obj | None, slices: Iterable[Obj]) -> list[tuple[str, int]]:
    """Host and port of every ready endpoint behind the Service's port."""
    spec = (service or {}).get("spec") or {}
    if spec.get("type") == "ExternalName":
        return [(str(spec.get("externalName") or ""), ref.port)]
    port = next((each for each in spec.get("ports") or () if each.get("port") == ref.port), None)
    if port is None:
        return []
    wanted = port.get("name") or ""
    return [
        (str(address), int(each["port"]))
        for slice_ in slices
        for each in slice_.get("ports") or ()
        if (each.get("name") or "") == wanted and each.get("port")
        for endpoint in slice_.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in (endpoint.get("addresses") or ())[:1]
    ]
