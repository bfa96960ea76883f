"""Answers of the webhook: new pods get what is recommended; wrong VerticalPodAutoscalers are refused.

Owns the JSON patches. Reads caches only, so that creating a pod waits for nobody. A pod of which nothing is known, or
with which something is odd, is let through as it is.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec

from api.resources import split_group_version
from client.client import key_of
from vertical_autoscaler import conflicts
from vertical_autoscaler.objects import OFF, VPAS, Vpa, amounts
from vertical_autoscaler.resources import Change, ContainerSpec, plan
from vertical_autoscaler.updater import OBSERVED, UPDATES, updates
from vertical_autoscaler.validation import validate
from vertical_autoscaler.world import Reference, World

Obj = dict[str, Any]
Patch = list[Obj]


class BadReview(Exception):
    """The body is no AdmissionReview."""


class Admission:
    """Reviews of pods and of autoscalers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.reviews = 0

    def review(self, body: bytes) -> bytes:
        """An AdmissionReview with a response for one with a request. Raises BadReview."""
        try:
            review = msgspec.json.decode(body)
            request = review["request"]
            uid, resource = str(request["uid"]), request["resource"]
            place = (resource.get("group", ""), resource["resource"])
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
            raise BadReview("expected an AdmissionReview with a request") from error
        self.reviews += 1
        response: Obj = {"uid": uid, "allowed": True}
        obj = request.get("object")
        try:
            if place == ("", "pods"):
                response |= self._pod(str(request.get("namespace") or ""), obj)
            elif place == (VPAS.group, VPAS.plural):
                response |= _vpa(obj, create=request.get("operation") == "CREATE")
        except (TypeError, AttributeError) as error:
            raise BadReview("the object does not look as it should") from error
        answer = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
        return msgspec.json.encode(answer)

    def _pod(self, namespace: str, pod: Obj) -> Obj:
        metadata = pod.get("metadata") or {}
        owner = _owner(metadata)
        vpas = [vpa for vpa in self._world.all_vpas() if vpa.mode != OFF]
        vpa = self._world.controlling(namespace, metadata.get("labels") or {}, owner, vpas)
        if vpa is None:
            return {}
        shared = conflicts.find([vpa], self._world.hpas.lister.list()).get(key_of(vpa), {})
        recommended = {name: each.without(shared) for name, each in vpa.recommended().items()}
        changes = plan(vpa, _containers(pod), recommended, self._world.ranges(namespace))
        patch = pod_patch(vpa, pod, [change for change in changes if change.requests or change.limits])
        return {"patchType": "JSONPatch", "patch": base64.b64encode(msgspec.json.encode(patch)).decode()}


def pod_patch(vpa: Vpa, pod: Mapping[str, Any], changes: list[Change]) -> Patch:
    """What to change in a new pod: resources, and notes of whom it was observed and updated by."""
    patch: Patch = []
    containers = (pod.get("spec") or {}).get("containers") or []
    for change in changes:
        path = f"/spec/containers/{change.container.place}/resources"
        found = containers[change.container.place].get("resources") or {}
        merged = {**found, **{key: {**(found.get(key) or {}), **value} for key, value in change.told().items()}}
        patch.append({"op": "add", "path": path, "value": merged})
    notes = {OBSERVED: ", ".join(str(each.get("name")) for each in containers)}
    if changes:
        notes[UPDATES] = updates(vpa, changes)
    present = (pod.get("metadata") or {}).get("annotations")
    if not present:
        patch.append({"op": "add", "path": "/metadata/annotations", "value": notes})
    else:
        patch += [{"op": "add", "path": f"/metadata/annotations/{key}", "value": value} for key, value in notes.items()]
    return patch


def _containers(pod: Mapping[str, Any]) -> list[ContainerSpec]:
    found = []
    for index, each in enumerate((pod.get("spec") or {}).get("containers") or ()):
        resources = each.get("resources") or {}
        requests, limits = amounts(resources.get("requests")), amounts(resources.get("limits"))
        found.append(ContainerSpec(index, str(each.get("name")), requests, limits))
    return found


def _owner(metadata: Mapping[str, Any]) -> Reference | None:
    for each in metadata.get("ownerReferences") or ():
        if each.get("controller"):
            group = split_group_version(str(each.get("apiVersion") or ""))[0]
            return Reference(group, str(each.get("kind")), str(each.get("name")))
    return None


def _vpa(obj: Mapping[str, Any], *, create: bool) -> Obj:
    errors = validate(obj.get("spec"), create=create)
    if not errors:
        return {}
    message = str(errors[0]) if len(errors) == 1 else f"[{', '.join(str(error) for error in errors)}]"
    return {"allowed": False, "status": {"status": "Failure", "message": message, "reason": "Invalid", "code": 422}}
