"""`cloud …`: node groups, instances, volumes, load balancers and their bill, as tables or JSON; orders and accidents.

Owns what is printed (`cli.cloud_flags` has the arguments). The cloud process knows and decides.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from cli import cloud_machines, cloud_volumes
from cli.errors import CommandError
from cli.layout import ClusterPaths
from cli.output import duration, say, table
from machinery import grpc as transport
from machinery.errors import ServiceUnavailable, StatusError
from proto.cloud.v1 import cloud_pb2 as pb

TIMEOUT = 10.0
Call = Callable[[Any], Awaitable[Any]]
Row = list[str]


def run(paths: ClusterPaths, options: argparse.Namespace) -> int:
    """Carry out one action. Raises CommandError."""
    action: str = options.action
    if action in _SEE:
        method, make, header, field, row = _SEE[action]
        answer = ask(paths, method, make(options))
        if options.output == "json":
            print(as_json(answer))
        else:
            rows = [row(each) for each in getattr(answer, field)]
            rows += [_bill_row(answer.total)] if action == "cost" else []
            print(table(header, rows))
        return 0
    method, request, told = _ORDERS[action](options)
    answer = ask(paths, method, request)
    say(told.format(answer))
    return 0


def ask(paths: ClusterPaths, method: str, request: Any) -> Any:
    """One call of the cloud's service. Raises CommandError with its words."""
    try:
        return asyncio.run(_ask(paths, method, request))
    except ServiceUnavailable as error:
        raise CommandError(f"the cloud does not answer: {error.message}") from error
    except StatusError as error:
        raise CommandError(error.message) from error


async def _ask(paths: ClusterPaths, method: str, request: Any) -> Any:
    import grpc.aio

    from proto.cloud.v1 import cloud_pb2_grpc, machines_pb2_grpc

    async with transport.channel(f"unix:{paths.cloud_socket}") as channel:
        single = method in cloud_machines.METHODS
        stub: Any = machines_pb2_grpc.MachineServiceStub if single else cloud_pb2_grpc.CloudServiceStub
        try:
            return await getattr(stub(channel), method)(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            raise transport.status_of(error) from error


def as_json(answer: Any) -> str:
    """Every field by its JSON name; unset ones have their default."""
    from google.protobuf.json_format import MessageToDict

    plain = MessageToDict(answer, always_print_fields_with_no_presence=True)
    return msgspec.json.format(msgspec.json.encode(plain)).decode()


def _type_row(each: pb.InstanceType) -> Row:
    return [each.name, each.cpu, each.memory, str(each.max_pods), str(each.max_volumes), f"{each.price_per_hour:.4f}"]


def _group_row(each: pb.Group) -> Row:
    kind = f"{'hollow' if each.hollow else 'real'}{', spot' if each.spot else ''}"
    heal = f"{each.heal_after:g}s" if each.heal_after else "-"
    sizes = [str(size) for size in (each.min, each.max, each.desired, each.running)]
    return [each.name, each.type, kind, *sizes, ",".join(each.zones), heal, each.fault.mode or "-"]


def _instance_row(each: pb.Instance) -> Row:
    state = each.state + (" (unhealthy)" if each.unhealthy else "")
    if each.HasField("interruption_in"):
        state += f" (ends in {each.interruption_in:.0f}s)"
    note = f"{each.error_code}: {each.message}" if each.error_code else each.message
    cells = [each.name, each.group, each.type, each.zone, state, duration(each.age)]
    return [*cells, f"{each.price_per_hour:.4f}", f"{each.cost:.4f}", note or "-"]


def _balancer_row(each: pb.LoadBalancer) -> Row:
    ports, ranges = ",".join(each.ports), ",".join(each.source_ranges)
    return [each.namespace, each.name, each.address or "<pending>", ports, ranges or "-"]


def _bill_row(each: pb.Bill) -> Row:
    money = [f"{each.hourly:.4f}", f"{each.total:.4f}", f"{each.hours:.2f}"]
    return [each.group or "total", str(each.running), *money]


_SEE: Mapping[str, tuple[str, Callable[[argparse.Namespace], Any], tuple[str, ...], str, Callable[[Any], Row]]] = {
    **cloud_volumes.SEE,
    **cloud_machines.SEE,
    "types": (
        "ListTypes",
        lambda options: pb.ListTypesRequest(),
        ("NAME", "CPU", "MEMORY", "PODS", "VOLUMES", "$/HOUR"),
        "types",
        _type_row,
    ),
    "groups": (
        "ListGroups",
        lambda options: pb.ListGroupsRequest(),
        ("NAME", "TYPE", "KIND", "MIN", "MAX", "DESIRED", "RUNNING", "ZONES", "HEAL-AFTER", "FAULT"),
        "groups",
        _group_row,
    ),
    "instances": (
        "ListInstances",
        lambda options: pb.ListInstancesRequest(group=options.group, gone=options.gone),
        ("NAME", "GROUP", "TYPE", "ZONE", "STATE", "AGE", "$/HOUR", "$", "NOTE"),
        "instances",
        _instance_row,
    ),
    "load-balancers": (
        "ListLoadBalancers",
        lambda options: pb.ListLoadBalancersRequest(),
        ("NAMESPACE", "SERVICE", "ADDRESS", "PORTS", "SOURCES"),
        "load_balancers",
        _balancer_row,
    ),
    "cost": (
        "GetCost",
        lambda options: pb.GetCostRequest(),
        ("GROUP", "RUNNING", "$/HOUR", "$", "MACHINE-HOURS"),
        "groups",
        _bill_row,
    ),
}


def _create(options: argparse.Namespace) -> tuple[str, Any, str]:
    group = pb.Group(
        name=options.group,
        type=options.type or "standard-2x2",
        min=options.min,
        max=options.max,
        desired=options.min if options.desired is None else options.desired,
        zones=filter(None, options.zones.split(",")),
        labels=_labels(options.labels),
        taints=_taints(options.taints),
        spot=options.spot,
        hollow=options.hollow,
        boot_delay=options.boot_delay,
        heal_after=options.heal_after,
        interruptions=options.interruptions,
        autoscaling=_autoscaling(options.autoscaling),
    )
    request = pb.CreateGroupRequest(group=group)
    if bool(options.cpu) != bool(options.memory):
        raise CommandError("a new instance type wants both --cpu and --memory", 2)
    if options.cpu:
        request.type.CopyFrom(
            pb.InstanceType(
                name=options.type,
                cpu=options.cpu,
                memory=options.memory,
                max_pods=options.max_pods,
                price_per_hour=options.price,
            )
        )
    return "CreateGroup", request, "created node group {0.name} of {0.type} ({0.min} to {0.max})"


def _update(options: argparse.Namespace) -> tuple[str, Any, str]:
    keys = ("min", "max", "desired", "heal_after", "boot_delay", "interruptions")
    chosen: dict[str, Any] = {key: getattr(options, key) for key in keys if getattr(options, key) is not None}
    if options.autoscaling:
        chosen["autoscaling"] = _autoscaling(options.autoscaling)
    if not chosen:
        raise CommandError("resize wants a size, or something else to change", 2)
    return (
        "UpdateGroup",
        pb.UpdateGroupRequest(name=options.group, **chosen),
        "{0.name}: {0.min} ≤ {0.desired} ≤ {0.max}",
    )


def _market(options: argparse.Namespace) -> tuple[str, Any, str]:
    if options.seed is not None and not 0 <= options.seed < 1 << 64:
        raise CommandError("--seed must be a whole number of at most 64 bits", 2)
    request = pb.UpdateSpotMarketRequest(interruptions=options.interruptions, notice=options.notice, seed=options.seed)
    return (
        "UpdateSpotMarket",
        request,
        "spot machines: {0.interruptions:g} interruptions per machine and hour, notice {0.notice:g} s, seed {0.seed}",
    )


def _fail(options: argparse.Namespace) -> tuple[str, Any, str]:
    mode = "" if options.mode == "none" else options.mode
    fault = pb.Fault(mode=mode, count=options.count, after=options.after)
    told = f"launches of {{0.name}} will fail: {mode}" if mode else "launches of {0.name} go well again"
    return "InjectFault", pb.InjectFaultRequest(group=options.group, fault=fault), told


_ORDERS: Mapping[str, Callable[[argparse.Namespace], tuple[str, Any, str]]] = {
    **cloud_volumes.ORDERS,
    **cloud_machines.ORDERS,
    "create-group": _create,
    "resize": _update,
    "fail": _fail,
    "spot-market": _market,
    "delete-group": lambda options: (
        "DeleteGroup",
        pb.DeleteGroupRequest(name=options.group),
        f"deleted node group {options.group}; its machines are going",
    ),
    "delete-instance": lambda options: (
        "DeleteInstance",
        pb.DeleteInstanceRequest(name=options.instance),
        f"{options.instance} is going",
    ),
    "interrupt": lambda options: (
        "Interrupt",
        pb.InterruptRequest(instance=options.instance, notice=options.notice),
        f"{options.instance} will be taken away in {{0.notice:.0f}} s",
    ),
}


def _labels(text: str, flag: str = "--labels") -> dict[str, str]:
    labels = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise CommandError(f"{flag}: {part!r}: want KEY=VALUE", 2)
        labels[key] = value
    return labels


def _taints(text: str) -> list[pb.Taint]:
    taints = []
    for part in filter(None, text.split(",")):
        pair, colon, effect = part.rpartition(":")
        key, _, value = pair.partition("=")
        if not colon:
            raise CommandError(f"--taints: {part!r}: want KEY[=VALUE]:EFFECT", 2)
        taints.append(pb.Taint(key=key, value=value, effect=effect))
    return taints


_BOOLS = {"true": True, "false": False}


def _autoscaling(text: str) -> pb.AutoscalingOptions:
    made = pb.AutoscalingOptions()
    fields = {each.name.replace("_", "-"): each.name for each in made.DESCRIPTOR.fields}
    for flag, value in _labels(text, "--autoscaling").items():
        if flag not in fields:
            raise CommandError(f"--autoscaling: {flag!r} is none of {', '.join(fields)}", 2)
        try:
            setattr(made, fields[flag], _BOOLS[value] if flag.startswith("ignore-") else float(value))
        except (KeyError, ValueError) as error:
            raise CommandError(f"--autoscaling: {flag}: {value!r} is no value for it", 2) from error
    return made
