"""`node kill|start|freeze|add|remove`: break machines and mend them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli import control
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths
from machinery import quantity

Say = Callable[[str], None]

_TOLD = {
    "kill": "pulled the plug of {}: its processes and containers are gone, its cable is dead (`node start` boots it)",
    "start": "booted {}",
    "freeze": "froze {}: it hangs, containers included (`node start` thaws it)",
}


def run(paths: ClusterPaths, config: ClusterConfig, action: str, node: str, *, cpu: str, memory: str, say: Say) -> None:
    """Carry out one action. Raises CommandError."""
    if action == "add":
        sizes: dict[str, Any] = {}
        for key, value in (("cpu", cpu), ("memory", memory)):
            if value:
                sizes[key] = _size(key, value)
        name = control.request(paths, "node-add", node=node, **sizes)
        say(f"added {name}")
        return
    if cpu or memory:
        raise CommandError("--cpu and --memory go with `node add`", 2)
    if not node:
        raise CommandError(f"node {action} wants the name of a node", 2)
    config.node(node)
    control.request(paths, f"node-{action}", node=node)
    if action == "remove":
        _delete_object(config, paths, node)
        say(f"removed {node}")
    else:
        say(_TOLD[action].format(node))


def _size(key: str, value: str) -> str:
    try:
        if quantity.parse(value) > 0:
            return value
    except ValueError as error:
        raise CommandError(f"--{key}: {error}", 2) from error
    raise CommandError(f"--{key} must be positive", 2)


def _delete_object(config: ClusterConfig, paths: ClusterPaths, node: str) -> None:
    """The machine is gone for good, so its Node object goes too (a cloud's node controller does this)."""
    from cli.rest import AdminClient

    try:
        code, _ = AdminClient(config, paths).request("DELETE", f"/api/v1/nodes/{node}")
    except OSError as error:
        raise CommandError(f"the machine is gone, but its Node object could not be deleted: {error}") from error
    if code not in (200, 202, 404):
        raise CommandError(f"the machine is gone, but deleting its Node object was answered with {code}")
