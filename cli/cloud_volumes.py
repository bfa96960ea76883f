"""`cloud volumes …`: block volumes as a table, and what may be ordered of them.

Owns their rows and requests; `cli.cloud` asks and prints, `cli.cloud_flags` has the arguments. The
cloud process knows and decides.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from cli.errors import CommandError
from cli.output import duration
from machinery import quantity
from proto.cloud.v1 import cloud_pb2 as pb

Row = list[str]
See = tuple[str, Callable[[argparse.Namespace], Any], tuple[str, ...], str, Callable[[Any], Row]]
Order = Callable[[argparse.Namespace], tuple[str, Any, str]]


def _row(each: pb.Volume) -> Row:
    size = f"{each.size / (1 << 30):g}Gi"
    money = [f"{each.price_per_month:.3f}", f"{each.cost:.4f}"]
    note = each.message or (f"fault: {each.fault}" if each.fault else "-")
    where = [each.zone, each.type, each.state, each.instance or "-", duration(each.age)]
    return [each.id, each.name, size, *where, *money, note]


def _bytes(text: str) -> int:
    try:
        return quantity.value(text)
    except ValueError as error:
        raise CommandError(f"size: {error}", 2) from error


def _create(options: argparse.Namespace) -> tuple[str, Any, str]:
    size = _bytes(options.size)
    request = pb.CreateVolumeRequest(name=options.volume, size=size, zone=options.zone, type=options.type)
    return "CreateVolume", request, "created volume {0.id} in {0.zone}"


def _fail(options: argparse.Namespace) -> tuple[str, Any, str]:
    mode = "" if options.mode == "none" else options.mode
    told = f"{{0.id}}: {mode}" if mode else "{0.id} works again"
    return "InjectVolumeFault", pb.InjectVolumeFaultRequest(volume=options.volume, mode=mode), told


SEE: Mapping[str, See] = {
    "volume-types": (
        "ListTypes",
        lambda options: pb.ListTypesRequest(),
        ("NAME", "$/GIB-MONTH", "MAX-GIB"),
        "volume_types",
        lambda each: [each.name, f"{each.price_per_month:.3f}", str(each.max_gib)],
    ),
    "volumes": (
        "ListVolumes",
        lambda options: pb.ListVolumesRequest(volume=options.volume),
        ("ID", "NAME", "SIZE", "ZONE", "TYPE", "STATE", "INSTANCE", "AGE", "$/MONTH", "$", "NOTE"),
        "volumes",
        _row,
    ),
}
ORDERS: Mapping[str, Order] = {
    "create-volume": _create,
    "fail-volume": _fail,
    "expand-volume": lambda options: (
        "ExpandVolume",
        pb.ExpandVolumeRequest(volume=options.volume, size=_bytes(options.size)),
        "{0.id} is growing to {0.size} bytes",
    ),
    "delete-volume": lambda options: (
        "DeleteVolume",
        pb.DeleteVolumeRequest(volume=options.volume),
        f"{options.volume} is going",
    ),
    "attach": lambda options: (
        "AttachVolume",
        pb.AttachVolumeRequest(volume=options.volume, instance=options.instance),
        "{0.id}: {0.state} ({0.instance})",
    ),
    "detach": lambda options: (
        "DetachVolume",
        pb.DetachVolumeRequest(volume=options.volume, force=options.force),
        "{0.id}: {0.state}",
    ),
}
