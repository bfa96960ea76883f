"""AdmissionReview: what is said to a webhook and what its answer means. Pure."""

from __future__ import annotations

import base64
import binascii
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from apiserver.admission.write import Write
from machinery.errors import StatusError

if TYPE_CHECKING:
    from api.resources import Resource

Obj = dict[str, Any]

GROUP = "admission.k8s.io"
SPOKEN = ("v1", "v1beta1")
OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


class BadAnswer(Exception):
    """The webhook's answer is none."""


class Verdict(NamedTuple):
    """What the webhook has decided."""

    allowed: bool
    status: Obj
    patch: list[Obj]
    warnings: list[str]
    annotations: dict[str, str]


def review_of(
    write: Write, version: str, uid: str = "", *, seen: Resource | None = None, new: Any = None, old: Any = None
) -> Obj:
    """The AdmissionReview to send. `new` and `old` are in the version `seen`, in which the webhook wants them."""
    ctx = write.ctx
    resource = seen or write.resource
    if seen is None:
        new, old = write.shown(write.new), write.shown(write.old)
    kind, asked = write.kind(resource), write.kind(write.sent)
    sub = write.subresource
    request: Obj = {
        "uid": uid or str(uuid.uuid4()),
        "kind": kind._asdict(),
        "resource": _resource(resource),
        **({"subResource": sub} if sub else {}),
        "requestKind": asked._asdict(),
        "requestResource": _resource(write.sent),
        **({"requestSubResource": sub} if sub else {}),
        **({"name": write.name} if write.name else {}),
        **({"namespace": write.namespace} if write.namespace else {}),
        "operation": write.op,
        "userInfo": ctx.user.to_dict(),
        "object": new,
        "oldObject": old,
        "dryRun": ctx.dry_run,
        "options": _options(write),
    }
    return {"kind": "AdmissionReview", "apiVersion": f"{GROUP}/{version}", "request": request}


def _resource(resource: Resource) -> Obj:
    return {"group": resource.group, "version": resource.version, "resource": resource.plural}


def _options(write: Write) -> Obj | None:
    kind = OPTIONS.get(write.op)
    if kind is None:
        return None
    options: Obj = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    if write.ctx.dry_run:
        options["dryRun"] = ["All"]
    if write.ctx.field_manager and write.op != "DELETE":
        options["fieldManager"] = write.ctx.field_manager
    return options


def verdict_of(raw: bytes, version: str, uid: str, *, mutating: bool) -> Verdict:
    """What the answer says. Raises BadAnswer."""
    try:
        answer = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAnswer(f"could not decode the response: {error}") from error
    if not isinstance(answer, dict):
        raise BadAnswer("expected webhook response of kind AdmissionReview")
    kind, api_version = answer.get("kind"), answer.get("apiVersion")
    if (kind, api_version) != ("AdmissionReview", f"{GROUP}/{version}"):
        raise BadAnswer(
            f"expected webhook response of {GROUP}/{version}, Kind=AdmissionReview, got {api_version}, Kind={kind}"
        )
    response = answer.get("response")
    if not isinstance(response, dict):
        raise BadAnswer("webhook response was absent")
    if response.get("uid") != uid:
        raise BadAnswer(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    status, warnings = response.get("status") or {}, response.get("warnings") or []
    annotations = response.get("auditAnnotations") or {}
    if not isinstance(status, dict) or not isinstance(warnings, list) or not isinstance(annotations, dict):
        raise BadAnswer("webhook response has fields of wrong types")
    return Verdict(
        response.get("allowed") is True,
        status,
        _patch_of(response) if mutating else [],
        [each for each in warnings if isinstance(each, str)],
        {key: value for key, value in annotations.items() if isinstance(value, str)},
    )


def _patch_of(response: Obj) -> list[Obj]:
    encoded, kind = response.get("patch"), response.get("patchType")
    if not encoded:
        if kind:
            raise BadAnswer("webhook returned response.patchType but not response.patch")
        return []
    if kind != "JSONPatch":
        raise BadAnswer("webhook returned response.patch but not response.patchType" if not kind else f"unknown {kind}")
    try:
        patch = msgspec.json.decode(base64.b64decode(encoded, validate=True))
    except (TypeError, binascii.Error, msgspec.DecodeError, RecursionError) as error:
        raise BadAnswer(f"could not decode response.patch: {error}") from error
    if not isinstance(patch, list) or not all(isinstance(each, dict) for each in patch):
        raise BadAnswer("response.patch is no JSON patch")
    return patch


def denial(hook: str, status: Obj) -> StatusError:
    """The error for the client when a webhook has refused."""
    text = f'admission webhook "{hook}" denied the request'
    if status.get("message"):
        text = f"{text}: {status['message']}"
    elif status.get("reason"):
        text = f"{text}: {status['reason']}"
    else:
        text = f"{text} without explanation"
    code = status.get("code")
    shown = {**status, "message": text, "code": code if isinstance(code, int) and 400 <= code < 600 else 400}
    error = StatusError.from_status(shown)
    error.reason = str(status.get("reason") or "")
    return error
