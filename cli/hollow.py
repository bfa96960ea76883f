"""`hollow COUNT`: as many simulated nodes as wanted, beside the real ones.

Owns the rights of the process that plays them, and the removal of their Node objects when none are wanted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from cli import control
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths, HollowConfig
from cli.rest import AdminClient
from machinery import quantity

Say = Callable[[str], None]
MAX_HOLLOW = 20_000
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLE = "system:hollow-nodes"
SELECTED = "/api/v1/nodes?labelSelector=nanokube.io%2Fhollow%3Dtrue%2C%21node.kubernetes.io%2Finstance-type"
"""Hollow nodes that are no machines of the cloud: those have an instance type, and are the cloud's to delete."""
TIMEOUT = 300.0
POLL = 0.1


def check(wanted: HollowConfig) -> HollowConfig:
    """Raises CommandError for nodes that cannot be."""
    if not 0 <= wanted.count <= MAX_HOLLOW:
        raise CommandError(f"hollow nodes: want between 0 and {MAX_HOLLOW}", 2)
    for key in ("cpu", "memory"):
        try:
            positive = quantity.parse(getattr(wanted, key)) > 0
        except ValueError as error:
            raise CommandError(f"--{key}: {error}", 2) from error
        if not positive:
            raise CommandError(f"--{key} must be positive", 2)
    if wanted.max_pods < 1:
        raise CommandError("--max-pods must be positive", 2)
    return wanted


def run(paths: ClusterPaths, config: ClusterConfig, wanted: HollowConfig, say: Say) -> None:
    """Make the cluster have exactly these hollow nodes; returns when they are registered. Raises CommandError."""
    check(wanted)
    client = AdminClient(config, paths)
    if not wanted.count:
        control.request(paths, "hollow", hollow=None)
        _expect(client.request("DELETE", SELECTED), "deleting the hollow nodes")
        say("no hollow nodes")
        return
    grant(client)
    started = time.monotonic()
    control.request(paths, "hollow", hollow=msgspec.to_builtins(wanted))
    wait(paths)
    say(f"{wanted.count} hollow nodes registered in {time.monotonic() - started:.1f} s")


def grant(client: AdminClient) -> None:
    """Let the process do what kubelets do, for every node of its own."""
    for plural, body in (("clusterroles", role()), ("clusterrolebindings", binding())):
        answer = client.request("POST", f"{RBAC}/{plural}", msgspec.json.encode(body))
        if answer[0] != 409:
            _expect(answer, f"granting rights by {plural}")


def wait(paths: ClusterPaths) -> None:
    """Until all are registered. Raises CommandError when that takes minutes."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        entry = next(each for each in control.request(paths, "status") if each["component"] == "hollow")
        if control.health(entry) == "Healthy":
            return
        time.sleep(POLL)
    raise CommandError(f"waited {TIMEOUT:.0f} s for hollow nodes; see {paths.logs / 'hollow.log'}")


def _expect(answer: tuple[int, bytes], what: str) -> None:
    if answer[0] not in (200, 201, 202):
        raise CommandError(f"{what} was answered with {answer[0]}: {answer[1][:300].decode(errors='replace')}")


def _rule(group: str, plurals: list[str], verbs: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": plurals, "verbs": verbs.split()}


def role() -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": ROLE},
        "rules": [
            _rule("", ["nodes", "nodes/status"], "create get list watch update patch delete"),
            _rule("", ["pods"], "get list watch delete"),
            _rule("", ["pods/status"], "update patch"),
            _rule("", ["events"], "create update patch"),
            _rule("coordination.k8s.io", ["leases"], "create get update patch delete"),
        ],
    }


def binding() -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": ROLE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": ROLE}],
    }
