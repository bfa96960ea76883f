"""What a real API server answers to requests that are wrong: one server, a table of mistakes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.harness.apiserver import (
    DEADLINE,
    USER_TOKEN,
    RestClient,
    RunningApiServer,
    running_apiserver,
    until_status,
)

CM = "/api/v1/namespaces/default/configmaps"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
YAML, PROTOBUF = "application/yaml", "application/vnd.kubernetes.protobuf"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
LIST = 'ListOptions.meta.k8s.io "" is invalid: '
MATCH = "resourceVersionMatch: Forbidden: "
TOKEN = "invalid continue token: continue key is not valid: "
BODY = "the object provided is unrecognized (must be of type ConfigMap): "
NO_NAME = 'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required'
STRUCT = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'

Row = tuple[str, str, bytes, dict[str, str], int, str]


def row(method: str, path: str, status: int, text: str, body: bytes = b"", content: str = "", accept: str = "") -> Row:
    """`text`: the message of the Status, or its end after `…`."""
    headers = {"content-type": content} if content else {}
    return method, path, body, {**headers, **({"accept": accept} if accept else {})}, status, text


ROWS = [
    row("GET", f"{CM}?limit=", 400, 'strconv.ParseInt: parsing "": invalid syntax'),
    row("GET", f"{CM}?resourceVersionMatch=Newest", 422, (
        f"{LIST}[{MATCH}resourceVersionMatch is forbidden unless resourceVersion is provided, resourceVersionMatch: "
        'Unsupported value: "Newest": supported values: "Exact", "NotOlderThan", ""]'
    )),
    row("GET", f"{CM}?watch=1&resourceVersionMatch=Exact", 422, (
        f"{LIST}[{MATCH}resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided, "
        'resourceVersionMatch: Unsupported value: "Exact": supported values: "NotOlderThan"]'
    )),
    row("GET", f"{CM}?watch=1&resourceVersionMatch=NotOlderThan&sendInitialEvents=1&continue=x", 422, (
        f"{LIST}{MATCH}resourceVersionMatch is forbidden when continue is provided"
    )),
    row("GET", f"{CM}?continue=e30", 400, f"{TOKEN}server does not recognize this encoded version "),
    row("GET", f"{CM}?continue=%3D", 400, f"{TOKEN}illegal base64 data at input byte 0"),
    row("GET", f"{CM}?continue=W10", 400, (
        f"{TOKEN}json: cannot unmarshal array into Go value of type storage.continueToken"
    )),
    # {"v":"meta.k8s.io/v1","rv":"x"}, {"v":"meta.k8s.io/v1","rv":0}, {…,"rv":5}, {…,"rv":5,"start":"a/../../b"}
    row("GET", f"{CM}?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6IngifQ", 400, (
        f"{TOKEN}json: cannot unmarshal string into Go struct field continueToken.rv of type int64"
    )),
    row("GET", f"{CM}?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MH0", 400, (
        f"{TOKEN}incorrect encoded start resourceVersion (version meta.k8s.io/v1)"
    )),
    row("GET", f"{CM}?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NX0", 400, (
        f"{TOKEN}encoded start key empty (version meta.k8s.io/v1)"
    )),
    row("GET", f"{CM}?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NSwic3RhcnQiOiJhLy4uLy4uL2IifQ", 400, (
        f"{TOKEN}a/../../b"
    )),
    row("GET", f"{CM}?includeObject=x", 400, (
        'Unable to convert to Table as requested: includeObject: Invalid value: "x": must be \'Metadata\', \'Object\', '
        "'None', or empty"
    ), accept="application/json;as=Table;g=meta.k8s.io;v=v1"),
    row("POST", CM, 422, NO_NAME, b"null"),
    row("POST", CM, 422, NO_NAME, b"", YAML),
    row("POST", f"{CM}?dryRun=All", 201, "", b"metadata: {name: first}\n---\nmetadata: {name: second}\n", YAML),
    row("POST", CM, 400, (
        f"{BODY}couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field "
        '.apiVersion of type string ({"apiVersion":1,"kind":"Config ...)'
    ), b'{"apiVersion":1,"kind":"ConfigMap"}'),
    row("POST", CM, 400, (
        f"{BODY}provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (61)"
    ), b"a", PROTOBUF),
    row("POST", CM, 400, f"{BODY}unexpected EOF (6b387300616263)", b"k8s\x00abc", PROTOBUF),
    row("POST", f"{CM}?fieldManager=a%0A%00", 422, (
        'CreateOptions.meta.k8s.io "" is invalid: [fieldManager: Invalid value: "a\\n\\u0000": invalid character '
        'U+000A (at position 1), fieldManager: Invalid value: "a\\n\\u0000": invalid character U+0000 (at position 2)]'
    ), b"{}"),
    row("PATCH", f"{CM}/one", 400, "Invalid JSON Patch", b"null", MERGE),
    row("PATCH", f"{CM}/one", 400, (
        "the name of the object (one based on URL) was undeterminable: name must be provided"
    ), b'{"metadata":null}', MERGE),
    row("PATCH", f"{CM}/one", 422, (
        "…json: cannot unmarshal string into Go struct field ConfigMap.metadata of type v1.ObjectMeta"
    ), b'{"metadata":"x"}', MERGE),
    row("PATCH", f"{CM}/one", 422, (
        "…: converting (v1.Pod) to (core.ConfigMap): unknown conversion"
    ), b'{"kind":"Pod"}', MERGE),
    row("PATCH", f"{CM}/one", 422, (
        '…: no kind "ConfigMap" is registered for version "v2" in scheme "pkg/api/legacyscheme/scheme.go:30"'
    ), b'{"apiVersion":"v2"}', MERGE),
    row("PATCH", f"{CM}/one", 422, (
        '…: no kind "Nope" is registered for version "v1" in scheme "pkg/api/legacyscheme/scheme.go:30"'
    ), b'{"kind":"Nope"}', MERGE),
    row("PATCH", f"{CM}/one", 200, "", b'{"kind":"Pod","apiVersion":"v2"}', STRATEGIC),
    row("DELETE", f"{CM}/one?resourceVersion=1", 409, "…The object might have been modified"),
    row("DELETE", f"{CM}/one?uid=x", 409, "…The object might have been deleted and then recreated"),
    row("DELETE", f"{CM}/one?propagationPolicy=", 422, (
        'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "": supported values: '
        '"Foreground", "Background", "Orphan", "nil"'
    )),
    row("DELETE", f"{CM}/one?propagationPolicy=x&orphanDependents=true", 422, (
        'DeleteOptions.meta.k8s.io "" is invalid: [propagationPolicy: Invalid value: "x": orphanDependents and '
        'deletionPropagation cannot be both set, propagationPolicy: Unsupported value: "x": supported values: '
        '"Foreground", "Background", "Orphan", "nil"]'
    )),
    row("DELETE", f"{CM}/one", 400, "couldn't get version/kind; json parse error: unexpected end of JSON input", b"{"),
    row("DELETE", f"{CM}/one", 400, (
        f"couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type {STRUCT}"
    ), b"[]"),
    row("DELETE", f"{CM}/one", 400, (
        "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64"
    ), b'{"gracePeriodSeconds":"1"}'),
    row("DELETE", f"{CM}/nope?propagationPolicy=x", 404, 'configmaps "nope" not found', b"{}"),
]  # fmt: skip


def widgets() -> dict[str, Any]:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    names = {"plural": "widgets", "kind": "Widget"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**kind, "metadata": {"name": "widgets.example.com"}, "spec": spec}


async def test_mistakes_are_told_as_upstream_tells_them() -> None:
    different: list[str] = []
    async with running_apiserver() as server:
        rest = server.rest()
        assert (await rest.post(CM, {"metadata": {"name": "one"}, "data": {"a": "1"}})).status == 201
        for method, path, body, headers, status, expected in ROWS:
            answer = await rest.request(method, path, body, headers)
            told = answer.json.get("message", "") if answer.json["kind"] == "Status" else ""
            fits = told.endswith(expected[1:]) if expected.startswith("…") else told == expected
            if answer.status != status or not fits:
                different.append(f"{method} {path} {body!r}: {answer.status} {told}\n  not {status} {expected}")
    assert not different, "\n".join(different)


async def test_custom_resources_are_never_protobuf(apiserver: RunningApiServer) -> None:
    rest = apiserver.rest()
    await rest.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", widgets())
    await until_status(rest, WIDGETS, lambda status: status == 200)
    body = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
    assert (await rest.post(WIDGETS, body)).status == 201
    why = b"does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    for path, kind in ((f"{WIDGETS}/w", b"Unstructured"), (WIDGETS, b"UnstructuredList")):
        answer = await rest.get(path, accept=PROTOBUF)
        assert answer.status == 406
        assert b"object *unstructured.%b %b" % (kind, why) in answer.body


async def _until_granted(rest: RestClient, verb: str) -> None:
    attributes = {"namespace": "default", "verb": verb, "group": "coordination.k8s.io", "resource": "leases"}
    review = {"spec": {"resourceAttributes": attributes}}
    async with asyncio.timeout(DEADLINE):
        while True:
            answer = await rest.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
            if answer.json["status"]["allowed"]:
                return
            await asyncio.sleep(0.005)


async def test_who_may_only_change_does_not_create(apiserver: RunningApiServer) -> None:
    admin, alice = apiserver.rest(), apiserver.rest(USER_TOKEN)
    rules = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["update", "patch"]}]
    await admin.post(f"{RBAC}/roles", {"metadata": {"name": "changer"}, "rules": rules})
    reference = {"kind": "Role", "name": "changer", "apiGroup": "rbac.authorization.k8s.io"}
    subjects = [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}]
    bound = {"metadata": {"name": "changer"}, "roleRef": reference, "subjects": subjects}
    await admin.post(f"{RBAC}/rolebindings", bound)
    await _until_granted(alice, "patch")
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "new"}, "spec": {}}
    apply = {"content-type": "application/apply-patch+yaml"}
    raw = json.dumps(lease).encode()
    for method, path, headers in (("PUT", "", {}), ("PATCH", "?fieldManager=alice", apply)):
        answer = await alice.request(method, f"{LEASES}/new{path}", raw, headers)
        assert answer.status == 403
        assert answer.json["message"].startswith('leases.coordination.k8s.io "new" is forbidden: ')
    assert (await admin.request("PUT", f"{LEASES}/new", raw)).status == 201
    assert (await alice.request("PATCH", f"{LEASES}/new?fieldManager=alice", raw, apply)).status == 200
