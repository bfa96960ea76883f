"""The kubeconfig of a cluster, and its context in the user's own kubeconfig.

Owns one cluster, user and context entry per nanokube cluster; every other entry of the user's file is kept as it is.
Source of the rules: the kubeconfig documentation ($KUBECONFIG's first file, else ~/.kube/config).
"""

from __future__ import annotations

import base64
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cli.errors import CommandError
from cli.layout import DEFAULT_NAME, ClusterConfig, ClusterPaths
from cli.pki import ADMIN
from machinery.tls import write_private

_SECTIONS = ("clusters", "users", "contexts")
LOCK_WAIT, LOCK_STEP = 5.0, 0.02  # real seconds


def context_name(cluster: str) -> str:
    """`nanokube` for the default cluster, `nanokube-<name>` for others."""
    return cluster if cluster == DEFAULT_NAME else f"{DEFAULT_NAME}-{cluster}"


def user_file() -> Path:
    """Where the user's kubectl looks first."""
    listed = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return Path(listed[0]) if listed else Path.home() / ".kube" / "config"


def build(config: ClusterConfig, paths: ClusterPaths) -> dict[str, Any]:
    """A kubeconfig with the admin's certificate inside."""

    def embedded(name: str) -> str:
        return base64.b64encode((paths.pki / name).read_bytes()).decode()

    name = context_name(config.name)
    cluster = {"server": f"https://127.0.0.1:{config.rest_port}", "certificate-authority-data": embedded("ca.crt")}
    user = {
        "client-certificate-data": embedded(f"{ADMIN}.crt"),
        "client-key-data": embedded(f"{ADMIN}.key"),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
        "preferences": {},
    }


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """kubectl's own lock: a file beside the kubeconfig that exists only while it is being changed."""
    lock = path.with_name(f"{path.name}.lock")
    for _ in range(int(LOCK_WAIT / LOCK_STEP)):
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0))
            break
        except FileExistsError:
            time.sleep(LOCK_STEP)
        except OSError as error:
            raise CommandError(f"{lock}: {error.strerror}") from error
    else:
        raise CommandError(f"{path}: another program is changing it; if none is, remove {lock}")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


@contextlib.contextmanager
def _edited(path: Path) -> Iterator[dict[str, Any]]:
    """Read, let the caller change, write back atomically; two commands at once take turns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        try:
            document = yaml.safe_load(path.read_text()) if path.exists() else None
        except (OSError, yaml.YAMLError) as error:
            raise CommandError(f"{path}: cannot be read as a kubeconfig: {error}") from error
        if document is None:
            document = {"apiVersion": "v1", "kind": "Config", "preferences": {}}
        if not isinstance(document, dict):
            raise CommandError(f"{path}: is not a kubeconfig")
        before = yaml.safe_dump(document, sort_keys=False)
        yield document
        after = yaml.safe_dump(document, sort_keys=False)
        if after != before:
            write_private(path.resolve(), after.encode())


def _without(document: dict[str, Any], name: str) -> None:
    for section in _SECTIONS:
        document[section] = [entry for entry in document.get(section) or [] if entry.get("name") != name]


def merge(config: ClusterConfig, paths: ClusterPaths) -> Path:
    """Add the cluster's context to the user's kubeconfig and make it current; returns the file."""
    own = build(config, paths)
    write_private(paths.kubeconfig, yaml.safe_dump(own, sort_keys=False).encode())
    path = user_file()
    with _edited(path) as document:
        _without(document, context_name(config.name))
        for section in _SECTIONS:
            document[section] = [*document[section], *own[section]]
        document["current-context"] = own["current-context"]
    return path


def remove(cluster: str) -> None:
    """Take the cluster's context out of the user's kubeconfig; another context becomes current only by the user."""
    path = user_file()
    if not path.exists():
        return
    name = context_name(cluster)
    with _edited(path) as document:
        if not any(entry.get("name") == name for entry in document.get("contexts") or []):
            return
        _without(document, name)
        if document.get("current-context") == name:
            document["current-context"] = ""
