"""`nanokube`'s commands: one function each, one row each in the parser.

Owns arguments, exit codes and what is printed. The work is done by the modules beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cli import cloud_flags, cluster, control, layout, tools
from cli.errors import CommandError
from cli.output import say, table

CHECKOUT = Path(__file__).resolve().parent.parent

HANDED_ON = ("kubectl", "test", "bench")


def _read_config(path: str | None) -> layout.UpConfig:
    if path is None:
        return layout.UpConfig()
    try:
        config = msgspec.yaml.decode(Path(path).read_bytes(), type=layout.UpConfig, strict=False)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", 2) from error
    except msgspec.MsgspecError as error:
        raise CommandError(f"{path}: {error}", 2) from error
    config.check()
    return config


def _up(options: argparse.Namespace) -> int:
    file = _read_config(options.config)
    only = [part for part in (options.only or "").split(",") if part] or file.only
    cluster.up(
        options.name,
        workers=options.workers if options.workers is not None else file.workers,
        only=only,
        time_scale=options.time_scale if options.time_scale is not None else file.timeScale,
        log_level=options.log_level or file.logLevel,
        machine=file.machine,
        audit=options.audit,
        prometheus=options.prometheus,
        vpa=options.vpa,
        nodepools=options.nodepools,
        block_volumes=options.block_volumes,
        say=say,
    )
    return 0


def _down(options: argparse.Namespace) -> int:
    cluster.down(options.name, say)
    return 0


def _status(options: argparse.Namespace) -> int:
    paths, _ = control.required(options.name)
    found = control.request(paths, "status")
    rows = [
        {
            "component": entry["component"],
            "node": entry["node"],
            "pid": entry["pid"],
            "address": entry["address"],
            "health": control.health(entry),
            "restarts": entry["restarts"],
        }
        for entry in found
    ]
    if options.output == "json":
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
    else:
        header = ("COMPONENT", "NODE", "PID", "ADDRESS", "HEALTH", "RESTARTS")
        cells = [
            [str(row[key]) or "-" for key in ("component", "node", "pid", "address", "health", "restarts")]
            for row in rows
        ]
        print(table(header, cells))
    return 0


def _kubeconfig(options: argparse.Namespace) -> int:
    import yaml

    from cli import kubeconfig

    paths, config = control.required(options.name)

    print(yaml.safe_dump(kubeconfig.build(config, paths), sort_keys=False), end="")
    return 0


def _logs(options: argparse.Namespace) -> int:
    paths, _ = control.required(options.name)
    names = sorted(path.stem for path in paths.logs.glob("*.log"))
    wanted = f"{options.component}-{options.node}" if options.node else options.component
    if wanted not in names:
        raise CommandError(f"no log of {wanted!r} (known: {', '.join(names)})")
    file = str(paths.logs / f"{wanted}.log")
    argv = ["tail", "-n", str(options.tail), *(["-F"] if options.follow else []), file]
    return subprocess.call(argv)


def _image(options: argparse.Namespace) -> int:
    from cli import images

    paths, config = control.required(options.name)
    if options.action == "load":
        images.load(paths, config, options.file, say)
    else:
        print(images.listing(paths, config))
    return 0


def _node(options: argparse.Namespace) -> int:
    from cli import nodes

    paths, config = control.required(options.name)
    nodes.run(paths, config, options.action, options.node, cpu=options.cpu, memory=options.memory, say=say)
    return 0


def _hollow(options: argparse.Namespace) -> int:
    from cli import hollow

    paths, config = control.required(options.name)
    keys = ("count", "cpu", "memory", "max_pods", "zones", "labels", "taints", "pods")
    hollow.run(paths, config, layout.HollowConfig(**{key: getattr(options, key) for key in keys}), say)
    return 0


def _cloud(options: argparse.Namespace) -> int:
    from cli import cloud

    paths, _ = control.required(options.name)
    return cloud.run(paths, options)


def _explain(options: argparse.Namespace) -> int:
    from cli import explain

    paths, _ = control.required(options.name)
    if options.kind == "pod":
        print(explain.pod(paths, options.namespace, options.object))
    else:
        print(explain.decision(paths, options.kind, options.namespace, options.object))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from cli.demo import command

    return command.autoscaling(
        options.name or command.CLUSTER,
        time_scale=options.time_scale or command.TIME_SCALE,
        keep=options.keep,
        as_json=options.output == "json",
    )


def _kubectl(options: argparse.Namespace) -> int:
    binary = tools.kubectl(say)
    paths = layout.ClusterPaths.of(options.name)
    environment = dict(os.environ)
    if paths.kubeconfig.exists():
        environment["KUBECONFIG"] = str(paths.kubeconfig)
    sys.stdout.flush()
    os.execve(binary, [binary, *options.arguments], environment)


def _test(options: argparse.Namespace) -> int:
    from cli import checks

    return checks.run(options.arguments, say)


def _bench(options: argparse.Namespace) -> int:
    from cli import checks

    return checks.bench(options.arguments, say)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nanokube", description="A Kubernetes-compatible mini cluster on this machine."
    )
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default=layout.DEFAULT_NAME, help="cluster name (default: nanokube)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser("up", parents=[named], help="start a cluster and merge its kubectl context")
    one.add_argument("--workers", type=int, help="worker nodes (default 3)")
    one.add_argument("--only", metavar="COMPONENT,…", help="start etcd and only these (e.g. apiserver)")
    one.add_argument("--time-scale", type=float, help="how much faster timers run (default 1)")
    one.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    one.add_argument("--audit", action="store_true", help="record every write (see `nanokube logs audit`)")
    one.add_argument(
        "--prometheus", action="store_true", help="run a Prometheus and serve custom and external metrics from it"
    )
    one.add_argument("--vpa", action="store_true", help="run the vertical pod autoscaler and serve its kinds")
    one.add_argument(
        "--nodepools",
        action="store_true",
        help="launch machines by NodePools (karpenter.sh/v1) instead of running the cluster autoscaler",
    )
    one.add_argument(
        "--block-volumes", action="store_true", help="have disks in the cloud, and a CSI driver for them on every node"
    )
    one.add_argument("--config", metavar="FILE", help="YAML: workers, timeScale, only, logLevel, machine")
    one.set_defaults(run=_up)

    one = commands.add_parser("down", parents=[named], help="stop a cluster and leave nothing behind")
    one.set_defaults(run=_down)

    one = commands.add_parser("status", parents=[named], help="list processes: component, node, pid, address, health")
    one.add_argument("-o", "--output", choices=("table", "json"), default="table")
    one.set_defaults(run=_status)

    one = commands.add_parser("kubeconfig", parents=[named], help="print the cluster's kubeconfig")
    one.set_defaults(run=_kubeconfig)

    one = commands.add_parser("logs", parents=[named], help="print the log of a component")
    one.add_argument("component")
    one.add_argument("--node", default="", help="the worker whose kubelet, runtime or kube-proxy is meant")
    one.add_argument("--tail", type=int, default=200)
    one.add_argument("-f", "--follow", action="store_true")
    one.set_defaults(run=_logs)

    one = commands.add_parser("image", parents=[named], help="load images into the nodes, or list them")
    actions = one.add_subparsers(dest="action", required=True)
    load = actions.add_parser("load", help="import a docker-archive or OCI archive into every node")
    load.add_argument("file")
    actions.add_parser("list", help="images of every node")
    one.set_defaults(run=_image)

    one = commands.add_parser("node", parents=[named], help="kill, start, freeze, add or remove a worker")
    one.add_argument("action", choices=("kill", "start", "freeze", "add", "remove"))
    one.add_argument("node", nargs="?", default="", metavar="NAME")
    one.add_argument("--cpu", default="", help="with add: declared CPUs (default 2)")
    one.add_argument("--memory", default="", help="with add: declared memory (default 2Gi)")
    one.set_defaults(run=_node)

    one = commands.add_parser("hollow", parents=[named], help="have so many simulated nodes beside the real ones")
    one.add_argument("count", type=int, metavar="COUNT", help="0 removes them all")
    one.add_argument("--cpu", default="4", help="declared CPUs of each (default 4)")
    one.add_argument("--memory", default="8Gi", help="declared memory of each (default 8Gi)")
    one.add_argument("--max-pods", type=int, default=110)
    one.add_argument("--zones", default="", metavar="ZONE,…", help="given to the nodes in turn")
    one.add_argument("--labels", default="", metavar="K=V,…")
    one.add_argument("--taints", default="", metavar="K=V:EFFECT,…")
    one.add_argument("--no-pods", dest="pods", action="store_false", help="only nodes: bound pods stay Pending")
    one.set_defaults(run=_hollow)

    one = commands.add_parser(
        "explain",
        parents=[named],
        help="say why: a pod is where it is, an HPA scaled, a VPA recommends, a node stays, a pod got no new node",
    )
    one.add_argument("kind", choices=("pod", "hpa", "vpa", "node", "nodegroup", "scale-up", "nodepool", "nodeclaim"))
    one.add_argument("object", metavar="NAME")
    one.add_argument("-n", "--namespace", default="default")
    one.set_defaults(run=_explain)

    one = commands.add_parser("cloud", parents=[named], help="node groups, machines, load balancers and their cost")
    cloud_flags.add(one)
    one.set_defaults(run=_cloud)

    one = commands.add_parser("demo", help="tell a story on a cluster of its own, or on one that runs, with evidence")
    one.add_argument("story", choices=("autoscaling",), help="load, replicas, a machine, and back again")
    one.add_argument("--name", help="the cluster (default: demo, which is brought up and taken down again)")
    one.add_argument(
        "--time-scale", type=float, help="of a cluster that is brought up (default 8: 2 to 3 minutes in all)"
    )
    one.add_argument("--keep", action="store_true", help="leave everything there at the end")
    one.add_argument("-o", "--output", choices=("table", "json"), default="table")
    one.set_defaults(run=_demo)

    one = commands.add_parser("kubectl", help="run kubectl against the cluster, bringing one if the machine has none")
    one.add_argument("--name", default=layout.DEFAULT_NAME)
    one.set_defaults(run=_kubectl)

    for name, run, text in (("test", _test, "run the tests"), ("bench", _bench, "measure, and print ratios")):
        one = commands.add_parser(name, help=text)
        one.set_defaults(run=run)
    return parser


def _name_first(argv: Sequence[str]) -> list[str]:
    """Move `--name X` to the front of a command's arguments, so that it may stand anywhere among them."""
    if not argv:
        return ["--help"]
    command, *rest = argv
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--name")
    known, others = finder.parse_known_args(rest)
    return [command, *([] if known.name is None else ["--name", known.name]), *others]


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """What was asked for. Commands that hand their arguments on take them as they are, but for a `--name` in front."""
    if not argv or argv[0] not in HANDED_ON:
        return _parser().parse_args(_name_first(argv))
    command, *rest = argv
    own: list[str] = []
    if command == "kubectl" and rest and rest[0].partition("=")[0] == "--name":
        count = 1 if "=" in rest[0] else 2
        own, rest = rest[:count], rest[count:]
    elif command != "kubectl" and rest in (["-h"], ["--help"]):
        own, rest = rest, []
    options = _parser().parse_args([command, *own])
    options.arguments = rest
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parsed(sys.argv[1:] if argv is None else argv)
    try:
        code: int = options.run(options)
    except CommandError as error:
        print(f"nanokube: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("nanokube: interrupted", file=sys.stderr)
        return 130
    return code
