"""`up`, `down` and what they need: choosing addresses, starting the supervisor, waiting for readiness, cleaning up.

Owns the order of both. `down` works from the state folder alone, so it also cleans after a supervisor, a machine or an
`up` that died half-way.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cli import block_volumes as volume_setup
from cli import claims, cloud_setup, control, layout, machines, monitoring, pki, supervisor, tools
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths, NodeConfig, Setting
from cli.processes import COMPONENTS, has_cloud
from cli.supervisor import in_child
from linux import loop, netns, pidfd
from linux.cgroup import Cgroups
from linux.netlink import Netlink

Say = Callable[[str], None]
READY_TIMEOUT = 60.0  # real seconds from start to Ready nodes; a warm start takes a few
DOWN_TIMEOUT = 20.0
PORT_PATIENCE = 2.0
POLL = 0.02
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def up(
    name: str,
    *,
    workers: int | None,
    only: list[str],
    time_scale: float | None,
    log_level: str | None,
    machine: Mapping[str, Setting],
    audit: bool = False,
    prometheus: bool = False,
    vpa: bool = False,
    nodepools: bool = False,
    block_volumes: bool = False,
    say: Say,
) -> ClusterConfig:
    """Bring a cluster up, or confirm that it is; returns when it is ready. Raises CommandError."""
    tools.require_root()
    with _turn(f"command-{name}", f"another command is bringing cluster {name} up or down", 0):
        extras = (audit, prometheus, vpa, nodepools, block_volumes)
        return _up(name, workers, only, time_scale, log_level, machine, *extras, say)


def _up(
    name: str,
    workers: int | None,
    only: list[str],
    time_scale: float | None,
    log_level: str | None,
    machine: Mapping[str, Setting],
    audit: bool,
    prometheus: bool,
    vpa: bool,
    nodepools: bool,
    block_volumes: bool,
    say: Say,
) -> ClusterConfig:
    paths = ClusterPaths.of(name)
    if control.is_running(paths):
        config = control.required(name)[1]
        if workers is not None and workers != len(config.nodes):
            raise CommandError(
                f"cluster {name} is running with {len(config.nodes)} workers; see `nanokube node add|remove`"
            )
        if prometheus and not config.prometheus:
            raise CommandError(f"cluster {name} is running without Prometheus; see `nanokube down`")
        if vpa and not config.vpa:
            raise CommandError(f"cluster {name} is running without the vertical autoscaler; see `nanokube down`")
        if nodepools and not config.nodepools:
            raise CommandError(f"cluster {name} is running without node pools; see `nanokube down`")
        if block_volumes and not config.block_volumes:
            raise CommandError(f"cluster {name} is running without block volumes; see `nanokube down`")
        from cli import kubeconfig

        say(f"cluster {name} is already running")
        kubeconfig.merge(config, paths)
        return config
    # One at a time on this machine: packages are installed, and a number is free until its config is saved.
    with _turn("preparation", "another `nanokube up` is still installing what it needs", tools.APT_TIMEOUT):
        config = layout.load(paths) or _plan(name, workers, only, time_scale, log_level, machine)
        config.audit = config.audit or audit
        config.prometheus = config.prometheus or prometheus
        config.vpa = config.vpa or vpa
        config.nodepools = config.nodepools or nodepools
        if block_volumes:
            volume_setup.choose(config, cloud=has_cloud(config))
        more = volume_setup.programs(config)
        tools.install_packages(tools.missing_packages(workers=config.has_machines, more=more), say)
        etcd = tools.etcd(say)
        if config.prometheus:
            tools.prometheus(say)
        _end_orphans(paths, config)
        _check_ports(config)
        clash = _clash(config)
        if clash:
            raise CommandError(clash)
        paths.make()
        layout.save(paths, config)
        cloud_setup.ensure(config, paths)
        _allow_forwarding(config, paths)
        if config.prometheus:
            monitoring.write(config, paths)
    in_child(lambda: pki.ensure(config, paths), "making certificates")
    started = time.monotonic()
    _spawn(paths, config, etcd)
    say(f"starting the control plane{f' and {len(config.nodes)} workers' if config.nodes else ''}")
    from cli import kubeconfig  # here and below: what only the CLI needs is imported after the supervisor forked

    file = kubeconfig.merge(config, paths)
    _wait_ready(config, paths, say, started)
    context = kubeconfig.context_name(name)
    say(f"ready in {time.monotonic() - started:.1f} s; kubectl context {context!r} is current in {file}")
    return config


@contextlib.contextmanager
def _turn(what: str, refusal: str, patience: float) -> Iterator[None]:
    """Be the only command on this machine that does `what`. Raises CommandError after `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            claim = claims.hold(what)
            break
        except OSError as error:
            if time.monotonic() >= deadline:
                raise CommandError(refusal) from error
            time.sleep(POLL)
    with claim:
        yield


def _end_orphans(paths: ClusterPaths, config: ClusterConfig) -> None:
    """Kill what a supervisor that died has left: its processes, not the containers."""
    cgroups = Cgroups()
    for node in config.nodes:  # whoever knew which were frozen is dead; and on v1 the frozen cannot die
        with contextlib.suppress(OSError):
            cgroups.thaw(f"{machines.cluster_cgroup(config.name)}/{node.name}")
    orphans = control.recorded(paths)
    for ref in orphans:
        ref.send(signal.SIGKILL)
    deadline = time.monotonic() + DOWN_TIMEOUT
    while any(ref.alive() for ref in orphans):
        if time.monotonic() > deadline:
            raise CommandError("processes of an earlier start would not die; try `nanokube down`")
        time.sleep(POLL)


def _plan(
    name: str,
    workers: int | None,
    only: list[str],
    time_scale: float | None,
    log_level: str | None,
    machine: Mapping[str, Setting],
) -> ClusterConfig:
    unknown = sorted(set(only) - set(COMPONENTS))
    if unknown:
        raise CommandError(f"--only: unknown component {unknown[0]!r} (known: {', '.join(COMPONENTS)})", 2)
    if time_scale is not None and not 0.01 <= time_scale <= 1000:
        raise CommandError("--time-scale must lie between 0.01 and 1000", 2)
    if workers is not None and not 0 <= workers <= layout.MAX_NODES:
        raise CommandError(f"--workers must lie between 0 and {layout.MAX_NODES}", 2)
    taken = {each.index for each in layout.clusters()}
    free = [n for n in range(layout.MAX_CLUSTERS) if n not in taken and not claims.is_held(n)]
    if not free:
        raise CommandError(f"this machine already has {layout.MAX_CLUSTERS} clusters")
    config = ClusterConfig(
        name=name, index=free[0], only=only, time_scale=time_scale or 1.0, log_level=log_level or "info"
    )
    config.index = next((n for n in free if not _clash(msgspec.structs.replace(config, index=n))), free[0])
    if config.has_machines:
        count = 3 if workers is None else workers
        sizes: dict[str, Any] = {key: str(machine[key]) for key in ("cpu", "memory") if key in machine}
        if "maxPods" in machine:
            sizes["max_pods"] = int(machine["maxPods"])
        config.nodes = [NodeConfig(name=f"worker-{number}", index=number, **sizes) for number in range(1, count + 1)]
        config.next_node = count + 1
        if has_cloud(config):
            cloud_setup.enroll(config)
    return config


def plan_clash(wanted: Sequence[str], routes: Iterable[tuple[str, str | None]]) -> str | None:
    """Which of this machine's routes (destination, gateway) stands against a network that is wanted, in words. Pure.

    A wider route through a gateway may stay: the more specific one wins, and only the cluster's own addresses are
    taken from it. A wider network on a link may not: its hosts, perhaps the gateway, would no longer be reached.
    """
    for network in map(ipaddress.IPv4Network, wanted):
        for destination, gateway in routes:
            there = ipaddress.IPv4Network(destination)
            if there.overlaps(network) and not (gateway and there.prefixlen < network.prefixlen) and there.prefixlen:
                return f"network {network} is in use on this machine: there is a route to {there}"
    return None


def _clash(config: ClusterConfig) -> str | None:
    if not config.has_machines:
        return None
    with Netlink() as host:
        own = host.links().get(machines.underlay_of(config, ClusterPaths.of(config.name)).host_link)
        routes = [(destination, gateway) for destination, gateway, link in host.routes() if link != own]
    wanted = [str(config.underlay), config.pod_cidr, config.service_cidr, config.load_balancer_cidr]
    return plan_clash(wanted, routes)


def _check_ports(config: ClusterConfig) -> None:
    """Raises CommandError when another program has a port; a process killed just now is given time to let go."""
    deadline = time.monotonic() + PORT_PATIENCE
    for port in (config.rest_port, config.grpc_port, *([config.prometheus_port] if config.prometheus else [])):
        while True:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                    break
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise CommandError(f"port {port} is taken by another program: {error.strerror}") from error
            time.sleep(POLL)


def _allow_forwarding(config: ClusterConfig, paths: ClusterPaths) -> None:
    """Machines reach the outside world through the host; remember what the host had before."""
    if not config.has_machines:
        return
    before = FORWARDING.read_text().strip()
    note = paths.run / "ip_forward"
    if not note.exists():
        # What another cluster found is what the host had: by now it is on because of that one.
        found = [other.read_text().strip() for other in layout.state_root().glob("*/run/ip_forward")]
        note.write_text("0" if "0" in found else before)
    if before != "1":
        FORWARDING.write_text("1")


def _spawn(paths: ClusterPaths, config: ClusterConfig, etcd: str) -> None:
    """Fork the supervisor off as a daemon."""
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    code = 1
    try:
        os.chdir("/")
        log = os.open(paths.logs / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, null), (1, log), (2, log)):
            os.dup2(source, target)
        os.closerange(3, 4096)
        paths.supervisor_pid.write_text(f"{os.getpid()} {pidfd.start_time(os.getpid())}")
        supervisor.main(paths, config, etcd)
        code = 0
    except BaseException:  # noqa: BLE001  the last frame of a daemon: tell its log
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait_ready(config: ClusterConfig, paths: ClusterPaths, say: Say, started: float) -> None:
    from cli import addons
    from cli.rest import AdminClient

    client = AdminClient(config, paths)
    deadline = started + READY_TIMEOUT
    waiting_for = "the API server"
    api_up = False
    ready: set[str] = set()
    while time.monotonic() < deadline:
        if not api_up:
            with contextlib.suppress(OSError):
                api_up = client.get("/readyz")[0] == 200
            if api_up:
                say(f"API server ready ({time.monotonic() - started:.1f} s)")
                addons.install(config, paths, client)
        else:
            now_ready = _ready_nodes(client)
            for node in sorted(now_ready - ready):
                say(f"node {node} Ready ({time.monotonic() - started:.1f} s)")
            ready = now_ready
            missing = [node.name for node in config.nodes if node.name not in ready]
            if not missing:
                return
            waiting_for = f"node {missing[0]}"
        if control.supervisor(paths) is None and time.monotonic() - started > 2:
            raise CommandError(f"the supervisor died: see {paths.logs / 'supervisor.log'}")
        time.sleep(POLL)
    raise CommandError(f"waited {READY_TIMEOUT:.0f} s for {waiting_for}; see {paths.logs} and `nanokube status`")


def _ready_nodes(client: Any) -> set[str]:
    try:
        code, body = client.get("/api/v1/nodes")
        items = msgspec.json.decode(body).get("items") or [] if code == 200 else []
    except (OSError, msgspec.DecodeError):
        return set()
    return {
        item["metadata"]["name"]
        for item in items
        for condition in (item.get("status") or {}).get("conditions") or ()
        if condition["type"] == "Ready" and condition["status"] == "True"
    }


def down(name: str, say: Say) -> None:
    """Stop a cluster and remove every process, mount, namespace, table, cgroup and file of it."""
    tools.require_root()
    with _turn(f"command-{name}", f"another command is bringing cluster {name} up or down", DOWN_TIMEOUT):
        _down(name, say)


def _down(name: str, say: Say) -> None:
    paths = ClusterPaths.of(name)
    if not paths.root.exists():
        say(f"no cluster {name!r} on this machine")
        return
    running = control.supervisor(paths)
    if running is not None:
        say(f"stopping cluster {name}")
        with contextlib.suppress(CommandError):
            control.request(paths, "stop")
        deadline = time.monotonic() + DOWN_TIMEOUT
        while running.alive() and time.monotonic() < deadline:
            time.sleep(POLL)
        running.send(signal.SIGKILL)
    for ref in control.recorded(paths):
        ref.send(signal.SIGKILL)
    config = None
    with contextlib.suppress(CommandError):  # a damaged config: clean what can be found without it
        config = layout.load(paths)
    cgroups = Cgroups()
    cgroup = machines.cluster_cgroup(name)
    clean = cgroups.kill(cgroup)
    if config is not None:
        _remove_network(config, paths)
    for pin in sorted((paths.run / "netns").glob("*")):
        netns.delete(str(pin))
    clean = cgroups.remove(cgroup) and clean
    from cli import kubeconfig

    trouble: CommandError | None = None
    try:
        kubeconfig.remove(name)
    except CommandError as error:  # the user's file is no reason to keep a cluster
        trouble = error
    loop.detach_below(str(paths.volumes))
    machines.remove_tree(paths.root)  # last: whoever interrupts a `down` before this can run it again
    # Not while another cluster is about to make its own group below.
    with contextlib.suppress(CommandError), _turn("preparation", "busy", 0):
        if not any(layout.clusters()):
            cgroups.remove_if_empty(machines.CGROUP)
    if paths.root.exists() or not clean:
        raise CommandError(f"something of cluster {name} would not go: see {paths.root} and cgroup {cgroup}")
    if trouble is not None:
        raise trouble
    say(f"cluster {name} is gone")


def _remove_network(config: ClusterConfig, paths: ClusterPaths) -> None:
    from kube_proxy.dataplane import delete_table

    if not config.has_machines:
        return
    delete_table(f"nanokube-{config.index}")
    machines.underlay_of(config, paths).remove()
    note = paths.run / "ip_forward"
    others = [each for each in layout.clusters() if each.name != config.name and each.has_machines]
    if note.exists() and not others:
        FORWARDING.write_text(note.read_text())
