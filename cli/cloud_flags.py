"""The arguments of `cloud …`, apart from the work so that other commands need not import it."""

from __future__ import annotations

import argparse
from typing import Any


def add(parser: argparse.ArgumentParser) -> None:
    """The actions of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    seen = argparse.ArgumentParser(add_help=False)
    seen.add_argument("-o", "--output", choices=("table", "json"), default="table")
    actions.add_parser("types", parents=[seen], help="instance types and their prices")
    actions.add_parser("groups", parents=[seen], help="node groups and their sizes")
    one = actions.add_parser("instances", parents=[seen], help="machines: state, age, cost")
    one.add_argument("group", nargs="?", default="")
    one.add_argument("--gone", action="store_true", help="also those that are gone")
    actions.add_parser("load-balancers", parents=[seen], help="Services with an address of the cloud")
    actions.add_parser("cost", parents=[seen], help="dollars per hour and in total, by group")

    _add_machines(actions, seen)
    _add_volumes(actions, seen)

    one = actions.add_parser("create-group", help="a new node group")
    one.add_argument("group")
    one.add_argument(
        "--type", default="", help="instance type (default standard-2x2), or a new one with --cpu, --memory"
    )
    for flag, text in (("--cpu", "CPUs of a new type"), ("--memory", "memory of a new type")):
        one.add_argument(flag, default="", help=text)
    one.add_argument("--max-pods", type=int, default=110, help="pods of a new type")
    one.add_argument("--price", type=float, default=0.0, help="dollars per hour of a new type (default by its size)")
    one.add_argument("--min", type=int, default=0)
    one.add_argument("--max", type=int, default=4)
    one.add_argument("--desired", type=int, help="(default: min)")
    one.add_argument("--zones", default="local-a", metavar="ZONE,…")
    one.add_argument("--labels", default="", metavar="K=V,…")
    one.add_argument("--taints", default="", metavar="K=V:EFFECT,…")
    one.add_argument("--spot", action="store_true", help="cheap machines that may be taken away")
    one.add_argument("--hollow", action="store_true", help="simulated machines, on which nothing runs")
    one.add_argument("--boot-delay", type=float, default=5.0, metavar="SECONDS")
    one.add_argument("--heal-after", type=float, default=120.0, metavar="SECONDS", help="0: failed ones stay")
    _add_group_options(one)

    one = actions.add_parser("delete-group", help="a node group and all its machines")
    one.add_argument("group")
    one = actions.add_parser("resize", help="change the size of a group, or its bounds")
    one.add_argument("group")
    one.add_argument("desired", nargs="?", type=int)
    one.add_argument("--min", type=int)
    one.add_argument("--max", type=int)
    one.add_argument("--boot-delay", type=float, metavar="SECONDS")
    one.add_argument(
        "--heal-after", type=float, metavar="SECONDS", help="replace machines that have failed for so long"
    )
    _add_group_options(one)
    one = actions.add_parser("delete-instance", help="take one machine away; its group wants one less")
    one.add_argument("instance")
    one = actions.add_parser("interrupt", help="announce to a machine that it will be taken away (spot)")
    one.add_argument("instance")
    one.add_argument("--notice", type=float, default=120.0, metavar="SECONDS")
    one = actions.add_parser("spot-market", help="see or change how spot machines are taken away at random")
    one.add_argument("--interruptions", type=float, metavar="RATE", help="per machine and hour (at first 0: none)")
    one.add_argument("--notice", type=float, metavar="SECONDS", help="warning before a machine goes (at first 120)")
    one.add_argument("--seed", type=int, help="the same seed: the same fate for the same machines")
    one = actions.add_parser("fail", help="let coming launches of a group go wrong")
    one.add_argument("group")
    one.add_argument("mode", choices=("out-of-capacity", "never-boots", "never-joins", "dies", "none"))
    one.add_argument("--count", type=int, default=-1, help="so many launches (default: all)")
    one.add_argument("--after", type=float, default=60.0, metavar="SECONDS", help="dies: from start to death")


def _add_group_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--interruptions", type=float, metavar="RATE", help="of spot machines, per machine and hour (default: market's)"
    )
    parser.add_argument(
        "--autoscaling",
        default="",
        metavar="FLAG=VALUE,…",
        help="cluster-autoscaler's flags for this group alone: scale-down-utilization-threshold, "
        "scale-down-unneeded-time, scale-down-unready-time, max-node-provision-time, max-node-startup-time (seconds), "
        "ignore-daemonsets-utilization",
    )


def _add_machines(actions: Any, seen: argparse.ArgumentParser) -> None:
    one = actions.add_parser("offerings", parents=[seen], help="what may be ordered one by one, where, at what price")
    one.add_argument("--hollow", action="store_true", help="as simulated machines")
    actions.add_parser("machines", parents=[seen], help="machines that were ordered one by one, by NodeClaims")
    actions.add_parser("outages", parents=[seen], help="what cannot be ordered now")
    one = actions.add_parser("outage", help="let there be no capacity for what is ordered one by one")
    for flag in ("type", "zone", "capacity-type"):
        one.add_argument(f"--{flag}", default="", help="only of this one")
    one.add_argument("--seconds", type=float, default=0.0, help="how long (default: until --over)")
    one.add_argument("--over", action="store_true", help="end it, and all that it covers")
    one = actions.add_parser("fail-machines", help="let coming orders of single machines go wrong")
    one.add_argument("mode", choices=("out-of-capacity", "never-boots", "never-joins", "dies", "none"))
    one.add_argument("--count", type=int, default=-1, help="so many orders (default: all)")
    one.add_argument("--after", type=float, default=60.0, metavar="SECONDS", help="dies: from start to death")


def _add_volumes(actions: Any, seen: argparse.ArgumentParser) -> None:
    actions.add_parser("volume-types", parents=[seen], help="kinds of block volumes and their prices")
    one = actions.add_parser("volumes", parents=[seen], help="block volumes: size, zone, where attached, cost")
    one.add_argument("volume", nargs="?", default="", help="one, by id or name")
    one = actions.add_parser("create-volume", help="a new block volume")
    one.add_argument("volume", metavar="NAME")
    one.add_argument("--size", default="1Gi", help="a quantity, rounded up to whole GiB")
    one.add_argument("--zone", default="", help="(default: the first)")
    one.add_argument("--type", default="", help="(default: standard)")
    one = actions.add_parser("expand-volume", help="let a volume have more")
    one.add_argument("volume")
    one.add_argument("size")
    one = actions.add_parser("delete-volume", help="a volume and its data")
    one.add_argument("volume")
    one = actions.add_parser("attach", help="plug a volume into a machine of its zone")
    one.add_argument("volume")
    one.add_argument("instance")
    one = actions.add_parser("detach", help="take a volume from its machine")
    one.add_argument("volume")
    one.add_argument("--force", action="store_true", help="though the machine has it mounted: writes will fail there")
    one = actions.add_parser("fail-volume", help="let attaching or detaching of a volume go wrong")
    one.add_argument("volume")
    one.add_argument("mode", choices=("attach-hangs", "attach-fails", "detach-hangs", "none"))
