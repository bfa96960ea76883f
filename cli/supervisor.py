"""The supervisor of a cluster: a warm interpreter that forks components, keeps them alive and answers the CLI.

Owns its loop, the orders that it takes, and the machines; the processes are `process_table`'s. Stays single-threaded,
without a loop of asyncio and without any gRPC object, so that forking is safe at any time (grpc/grpc#13873). Restarts
control-plane processes, runtimes and proxies as static pods and systemd would; never a kubelet that was killed. Started
by `nanokube up`, stopped by `nanokube down` or SIGTERM; if it dies, its children live on and the next `up` takes over.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from cli import layout, pki, processes
from cli.claims import hold_index
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths, HollowConfig, NodeConfig
from cli.machines import cluster_cgroup, machine_of, remove_tree, underlay_of
from cli.process_table import Managed, ProcessTable
from cli.processes import ProcessSpec
from cli.supervised_logs import bound_own, tell
from cloud.machine import Machine
from linux.cgroup import Cgroups
from machinery import log_files

# What every component needs, imported once here. numpy and cryptography are left to the one that uses them.
PRELOAD = (
    "uvloop",
    "grpc",
    "grpc.aio",
    "msgspec",
    "api.models",
    "api.resources",
    "machinery.component",
    "machinery.grpc",
)
COLD = frozenset({"scheduler"})  # imports numpy: 11 MiB that only it needs
ROTATE_SECONDS = 60.0
REQUEST_LIMIT = 64 * 1024


def in_child(work: Callable[[], None], what: str) -> None:
    """Run `work` in a forked child, so that what it imports (cryptography: 9 MiB) stays out of every component.

    Raises CommandError when it failed; the child has told why on standard error.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except Exception as error:  # noqa: BLE001  told, and the exit code carries it to the parent
            print(f"{what}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise CommandError(f"{what} failed")


class Supervisor:
    """The process table and its event loop."""

    def __init__(self, paths: ClusterPaths, config: ClusterConfig, etcd_binary: str) -> None:
        self._paths = paths
        self._config = config
        self._etcd = etcd_binary
        self._cgroups = Cgroups()
        self._selector = selectors.DefaultSelector()
        self._table = ProcessTable(paths, config, self._cgroups, self._selector)
        self._frozen: set[str] = set()
        self._rotate_at = 0.0

    # start

    def run(self) -> None:
        """Start everything and serve until told to stop."""
        self._claim = hold_index(self._config.index)
        cgroup = cluster_cgroup(self._config.name)
        for leaf in ("supervisor", "control-plane"):
            self._cgroups.create(f"{cgroup}/{leaf}")
        self._cgroups.attach(f"{cgroup}/supervisor", os.getpid())
        control = self._listen()
        signals = self._signals()
        plane = processes.control_plane(self._config, self._paths, self._etcd)
        self._table.keep(plane[:1])  # etcd starts while the interpreter warms up
        self._warm()
        if self._config.has_machines:
            underlay_of(self._config, self._paths).build([self._config.service_cidr, self._config.load_balancer_cidr])
        self._table.keep(plane[1:])
        for node in self._config.nodes:
            self._boot(node)
        while not self._table.closing:
            soon = self._table.until_retry()
            for key, _ in self._selector.select(ROTATE_SECONDS if soon is None else soon):
                if key.fileobj is control:
                    self._answer(control)
                elif key.fileobj is signals:
                    self._table.closing = bool(signals.recv(64)) or self._table.closing
                elif isinstance(key.data, Managed):
                    self._table.reap(key.data)
            self._table.retry()
            self._rotate()
        self._table.stop(list(self._table.entries.values()))
        self._table.record()
        control.close()
        self._paths.control_socket.unlink(missing_ok=True)

    def _listen(self) -> socket.socket:
        self._paths.control_socket.unlink(missing_ok=True)
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        control.bind(str(self._paths.control_socket))
        control.listen(16)
        self._selector.register(control, selectors.EVENT_READ)
        return control

    def _signals(self) -> socket.socket:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._writer = writer  # the descriptor must outlive this call
        self._selector.register(reader, selectors.EVENT_READ)
        return reader

    def _warm(self) -> None:
        os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # read when grpc is imported; see machinery.component
        for name in PRELOAD:
            importlib.import_module(name)
        for module in {spec.module for spec in self._expected()} - COLD:
            importlib.import_module(f"{module}.app")
        gc.collect()
        gc.freeze()  # shared pages stay shared: the collector of a child does not touch what was made here

    def _expected(self) -> list[ProcessSpec]:
        """What will be forked: only that is worth importing."""
        config = self._config
        plane = processes.control_plane(config, self._paths, self._etcd)
        workers = processes.worker(config, self._paths, config.nodes[0], "") if config.nodes else []
        return [spec for spec in (*plane, *workers) if spec.module]

    def _boot(self, node: NodeConfig) -> None:
        machine = machine_of(self._config, self._paths, node)
        machine.build(self._cgroups)
        machine.underlay.set_port(machine.port, True)
        self._paths.node(node.name).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._table.keep(processes.worker(self._config, self._paths, node, machine.cgroup))

    def _rotate(self) -> None:
        """Bound the logs of those who do not do it themselves."""
        now = time.monotonic()
        if now < self._rotate_at:
            return
        self._rotate_at = now + ROTATE_SECONDS
        limit = processes.LOG_MEBIBYTES * log_files.MEBIBYTE
        try:
            bound_own(limit)
            self._table.bound_logs(limit)
        except OSError as error:
            tell(f"could not rotate a log: {error}")

    # answer

    def _answer(self, control: socket.socket) -> None:
        try:
            connection, _ = control.accept()
        except OSError as error:  # gone already, or no descriptor left
            tell(f"could not take a request: {error}")
            return
        with connection:
            connection.settimeout(5.0)
            try:
                raw = b""
                while not raw.endswith(b"\n"):
                    chunk = connection.recv(REQUEST_LIMIT)
                    raw += chunk
                    if not chunk or len(raw) > REQUEST_LIMIT:
                        return
                connection.settimeout(60.0)
                reply: dict[str, Any] = {"ok": self._command(msgspec.json.decode(raw))}
            except (CommandError, OSError, KeyError, TypeError, msgspec.MsgspecError) as error:
                reply = {"error": str(error)}
            except Exception as error:  # noqa: BLE001  told to both sides; no request may end the supervisor
                tell(f"failed to carry out a request: {error!r}")
                reply = {"error": f"the supervisor failed: {error!r}"}
            with contextlib.suppress(OSError):
                connection.sendall(msgspec.json.encode(reply) + b"\n")

    def _command(self, request: dict[str, Any]) -> Any:
        match request["command"]:
            case "status":
                return [
                    {**each.describe(), "frozen": each.spec.node in self._frozen}
                    for each in self._table.entries.values()
                ]
            case "stop":
                self._table.closing = True
                return None
            case "machines":
                return [self._describe(node) for node in self._config.nodes]
            case "node-add":
                return self._add_node(request)
            case "hollow-machines":
                return self._play_machines()
            case "hollow":
                return self._hollow(msgspec.convert(request["hollow"], HollowConfig | None))
        node = self._config.node(request["node"])
        machine = machine_of(self._config, self._paths, node)
        match request["command"]:
            case "node-start":
                if node.name in self._frozen:
                    machine.thaw(self._cgroups)
                    self._frozen.discard(node.name)
                self._boot(node)
            case "node-freeze":
                machine.freeze(self._cgroups)
                self._frozen.add(node.name)
            case "node-kill":
                self._power_off(node, machine)
            case "node-remove":
                self._power_off(node, machine)
                self._forget(node, machine)
            case unknown:
                raise CommandError(f"unknown command {unknown!r}")
        return None

    def _describe(self, node: NodeConfig) -> dict[str, Any]:
        """A machine as a cloud's health check sees it: one whose kubelet does not run does nothing for its cluster."""
        kubelet = self._table.entries.get(f"kubelet-{node.name}")
        healthy = kubelet is not None and kubelet.running and node.name not in self._frozen
        return {"node": node.name, "group": node.group, "healthy": healthy}

    def _add_node(self, request: dict[str, Any]) -> str:
        config = self._config
        if len(config.nodes) >= layout.MAX_NODES:
            raise CommandError(f"a cluster has at most {layout.MAX_NODES} nodes")
        if not config.has_machines:
            raise CommandError("this cluster was started without workers (--only)")
        name = request.get("node") or f"worker-{config.next_node}"
        layout.check_name(name, "node name")
        if any(node.name == name for node in config.nodes):
            raise CommandError(f"cluster {config.name} already has a node {name!r}")
        taken = {node.index for node in config.nodes}
        index = next(number for number in range(1, layout.MAX_NODES + 2) if number not in taken)
        keys = ("cpu", "memory", "max_pods", "group", "labels", "taints")
        wanted = {key: request[key] for key in keys if request.get(key)}
        node = msgspec.convert({"name": name, "index": index, **wanted}, NodeConfig)
        config.nodes.append(node)
        config.next_node += 1
        layout.save(self._paths, config)
        in_child(lambda: pki.ensure(config, self._paths), "making certificates")
        self._boot(node)
        return name

    def _play_machines(self) -> None:
        """Have the process run that plays the cloud's hollow machines."""
        if not self._config.hollow_machines:
            self._config.hollow_machines = True
            layout.save(self._paths, self._config)
            in_child(lambda: pki.ensure(self._config, self._paths), "making certificates")
        self._table.keep([processes.hollow_machines(self._config, self._paths)])

    def _hollow(self, wanted: HollowConfig | None) -> None:
        """Play these nodes from now on; None: none."""
        self._config.hollow = wanted
        layout.save(self._paths, self._config)
        known = self._table.entries.pop("hollow", None)
        if known is not None:
            self._table.stop([known])
        if wanted is not None:
            in_child(lambda: pki.ensure(self._config, self._paths), "making certificates")
            self._table.keep([processes.hollow(self._config, self._paths, wanted)])
        self._table.record()

    def _power_off(self, node: NodeConfig, machine: Machine) -> None:
        for managed in self._table.of_node(node.name):
            managed.wanted = False
        machine.underlay.set_port(machine.port, False)
        if not machine.power_off(self._cgroups):
            raise CommandError(f"some process of {node.name} would not die")
        self._frozen.discard(node.name)

    def _forget(self, node: NodeConfig, machine: Machine) -> None:
        from runtime.cleanup import purge

        self._table.stop(self._table.of_node(node.name))
        for managed in self._table.of_node(node.name):
            del self._table.entries[managed.spec.name]
        root = self._paths.node(node.name)
        purge(root / "runtime", root / "state")
        machine.remove(self._cgroups)
        remove_tree(root)
        for leftover in self._paths.pki.glob(f"kubelet-{node.name}.*"):
            leftover.unlink()
        self._config.nodes.remove(node)
        layout.save(self._paths, self._config)
        self._table.record()


def main(paths: ClusterPaths, config: ClusterConfig, etcd_binary: str) -> None:
    """Run as the supervisor; returns when the cluster was stopped."""
    Supervisor(paths, config, etcd_binary).run()
