"""What a request line asks for: Kubernetes' RequestInfo.

Owns: turning method and path into verb, group, version, resource, namespace, name and subresource, as upstream reads
them. Never looks whether such a resource exists. Called by the REST door for every request, so it splits strings and
does nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from apiserver.auth.attributes import Attributes

# Segments after `namespaces/<name>` that are subresources of the namespace, not resources inside it.
NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
# Subresources whose path goes on after them.
PROXY_SUBRESOURCES = frozenset({"proxy"})

VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(slots=True)
class RequestInfo(Attributes):
    """One request line, read. For a non-resource path only `path` and `verb` count."""

    rest: str = ""  # what follows a proxy subresource
    legacy_watch: bool = False
    deep: bool = False  # goes deeper than any resource that is served here


def parse(method: str, path: str) -> RequestInfo:
    """The request line as a RequestInfo."""
    segments = path.split("/")
    count = len(segments)
    root = segments[1] if count > 1 else ""
    if root == "api" and count > 3:
        group, version, first = "", segments[2], 3
    elif root == "apis" and count > 4:
        group, version, first = segments[2], segments[3], 4
    else:
        return RequestInfo(path, method.lower())
    if not segments[-1]:  # a trailing slash means nothing
        count -= 1
        if count <= first:
            return RequestInfo(path, method.lower())
    info = RequestInfo(path, VERBS.get(method, ""), True, group, version)
    if segments[first] == "watch" and count > first + 1:
        info.legacy_watch = True
        first += 1
    left = count - first
    if segments[first] == "namespaces" and left >= 2:
        info.namespace = segments[first + 1]
        if left == 2 or (left == 3 and segments[first + 2] in NAMESPACE_SUBRESOURCES):
            info.resource, info.name = "namespaces", info.namespace
            if left == 3:
                info.subresource = segments[first + 2]
            return _with_verb(info, method)
        first += 2
        left -= 2
    info.resource = segments[first]
    if left > 1:
        info.name = segments[first + 1]
    if left > 2:
        info.subresource = segments[first + 2]
    if left > 3:
        info.deep = info.subresource not in PROXY_SUBRESOURCES
        info.rest = "/".join(segments[first + 3 :])
    return _with_verb(info, method)


def _with_verb(info: RequestInfo, method: str) -> RequestInfo:
    if info.legacy_watch:
        info.verb = "watch"
    elif not info.name:
        if info.verb == "get":
            info.verb = "list"
        elif method == "DELETE":
            info.verb = "deletecollection"
    return info


def selected_name(field_selector: str) -> str:
    """The name that a field selector pins the list to, or ""."""
    for part in field_selector.split(","):
        field, _, value = part.partition("=")
        if field == "metadata.name":
            return value.removeprefix("=")
    return ""
