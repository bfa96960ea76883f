"""Credentials for pulls: what the pull secrets of a pod say about an image's registry. Pure.

The format is Docker's (`.dockerconfigjson`, `.dockercfg`); the matching is Kubernetes': a key is a host with an
optional port and path, `*` stands for one part of the host name, and a longer match is tried first. Called by
`kubelet.images`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

DOCKER_HUB = "index.docker.io"
_HUB_NAMES = ("docker.io", DOCKER_HUB)


@dataclass(frozen=True, slots=True)
class Credential:
    """How to log in to a registry."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""


def credentials_for(image: str, secrets: Iterable[Mapping[str, Any]]) -> list[Credential]:
    """The credentials that apply to an image, most specific key first. `secrets` are the data of pull secrets."""
    entries: list[tuple[str, Credential]] = []
    for data in secrets:
        entries.extend(_entries(data))
    entries.sort(key=lambda entry: entry[0], reverse=True)  # stable: a pod's first secret counts first
    repository = repository_of(image)
    found = [credential for key, credential in entries if _matches(key, repository)]
    if repository.partition("/")[0] in _HUB_NAMES:
        found += [credential for key, credential in entries if key == DOCKER_HUB and credential not in found]
    return list(dict.fromkeys(found))


def repository_of(image: str) -> str:
    """`busybox:1` is `docker.io/library/busybox`."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = head + slash + last.partition(":")[0]
    domain, slash, rest = name.partition("/")
    if not slash or not ("." in domain or ":" in domain or domain == "localhost"):
        domain, rest = "docker.io", name
    if domain in _HUB_NAMES and "/" not in rest:
        rest = f"library/{rest}"
    return f"{domain}/{rest}"


def _entries(data: Mapping[str, Any]) -> Iterable[tuple[str, Credential]]:
    """(key, credential) of one secret; what cannot be read counts as nothing, as upstream."""
    for field in (".dockerconfigjson", ".dockercfg"):
        if field not in data:
            continue
        try:
            parsed = json.loads(base64.b64decode(data[field]))
        except (ValueError, TypeError, RecursionError):
            continue
        auths = parsed.get("auths") if field == ".dockerconfigjson" and isinstance(parsed, dict) else parsed
        for server, entry in (auths if isinstance(auths, dict) else {}).items():
            if isinstance(entry, dict):
                yield _key(str(server)), _credential(str(server), entry)


def _credential(server: str, entry: Mapping[str, Any]) -> Credential:
    def text(name: str) -> str:
        value = entry.get(name)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if text("auth"):
        with suppress(binascii.Error, ValueError):
            username, _, password = base64.b64decode(text("auth")).decode("utf-8", "replace").partition(":")
    return Credential(username, password, text("identitytoken"), text("registrytoken"), server)


def _key(server: str) -> str:
    """`https://host:port/v1/path/` is `host:port/path`."""
    bare = server.partition("://")[2] or server
    host, slash, path = bare.partition("/")
    path = slash + path
    if path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    return (host + path).rstrip("/")


def _matches(key: str, repository: str) -> bool:
    """Whether a key covers a repository."""
    host, _, path = key.partition("/")
    domain, _, rest = repository.partition("/")
    name, _, port = host.partition(":")
    wanted, _, wanted_port = domain.partition(":")
    parts, wanted_parts = name.split("."), wanted.split(".")
    if port != wanted_port or len(parts) != len(wanted_parts):
        return False
    if not all(fnmatchcase(part, pattern) for pattern, part in zip(parts, wanted_parts, strict=True)):
        return False
    return rest.startswith(path)
