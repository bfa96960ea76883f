"""`cloud offerings …`: machines that are ordered one by one: what is offered, what runs, what cannot be had.

Owns their rows and requests; `cli.cloud` asks and prints, `cli.cloud_flags` has the arguments. The cloud process knows
and decides.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from cli.output import duration
from proto.cloud.v1 import machines_pb2 as pb

Row = list[str]
See = tuple[str, Callable[[argparse.Namespace], Any], tuple[str, ...], str, Callable[[Any], Row]]
Order = Callable[[argparse.Namespace], tuple[str, Any, str]]


def _offering(each: pb.Offering) -> Row:
    has = [each.capacity["cpu"], each.capacity["memory"], each.capacity["pods"]]
    state = "yes" if each.available else "no"
    return [each.instance_type, each.zone, each.capacity_type, *has, f"{each.price_per_hour:.4f}", state]


def _machine(each: pb.Machine) -> Row:
    state = each.state + (" (unhealthy)" if each.unhealthy else "")
    if each.HasField("interruption_in"):
        state += f" (ends in {each.interruption_in:.0f}s)"
    offering = each.offering
    tags = ",".join(f"{key}={value}" for key, value in sorted(each.tags.items()))
    what = [offering.instance_type, offering.zone, offering.capacity_type, "hollow" if each.hollow else "real"]
    return [each.name, *what, state, duration(each.age), f"{offering.price_per_hour:.4f}", tags, each.message or "-"]


def _outage(each: pb.Outage) -> Row:
    left = duration(each.seconds) if each.HasField("seconds") else "-"
    return [each.instance_type or "*", each.zone or "*", each.capacity_type or "*", left]


def _set_outage(options: argparse.Namespace) -> tuple[str, Any, str]:
    request = pb.SetOutageRequest(
        instance_type=options.type,
        zone=options.zone,
        capacity_type=options.capacity_type,
        seconds=options.seconds,
        over=options.over,
    )
    what = " ".join(filter(None, (options.type, options.zone, options.capacity_type))) or "everything"
    return "SetOutage", request, f"{what} can be launched again" if options.over else f"no capacity for {what} now"


def _fail(options: argparse.Namespace) -> tuple[str, Any, str]:
    mode = "" if options.mode == "none" else options.mode
    request = pb.InjectMachineFaultRequest(mode=mode, count=options.count, after=options.after)
    told = f"machines ordered one by one will fail: {mode}" if mode else "machines ordered one by one go well again"
    return "InjectMachineFault", request, told


SEE: Mapping[str, See] = {
    "offerings": (
        "ListOfferings",
        lambda options: pb.ListOfferingsRequest(hollow=options.hollow),
        ("TYPE", "ZONE", "CAPACITY", "CPU", "MEMORY", "PODS", "$/HOUR", "AVAILABLE"),
        "offerings",
        _offering,
    ),
    "machines": (
        "ListMachines",
        lambda options: pb.ListMachinesRequest(),
        ("NAME", "TYPE", "ZONE", "CAPACITY", "KIND", "STATE", "AGE", "$/HOUR", "TAGS", "NOTE"),
        "machines",
        _machine,
    ),
    "outages": (
        "ListOutages",
        lambda options: pb.ListOutagesRequest(),
        ("TYPE", "ZONE", "CAPACITY", "LEFT"),
        "outages",
        _outage,
    ),
}
ORDERS: Mapping[str, Order] = {"outage": _set_outage, "fail-machines": _fail}
METHODS = frozenset(each.name for each in pb.DESCRIPTOR.services_by_name["MachineService"].methods)
"""Of the cloud's MachineService."""
