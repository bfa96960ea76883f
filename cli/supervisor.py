"""The supervisor of a cluster: a warm interpreter that forks components, keeps them alive and answers the CLI.

Owns the process table of one cluster and its machines. Stays single-threaded, without a loop and without any gRPC
object, so that forking is safe at any time (grpc/grpc#13873). Restarts control-plane processes, runtimes and proxies as
static pods and systemd would; never a kubelet that was killed. Started by `nanokube up`, stopped by `nanokube down` or
SIGTERM; if it dies, its children live on and the next `up` takes over.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import selectors
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cli import layout, pki, processes
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths, HollowConfig, NodeConfig
from cli.processes import ProcessSpec
from cloud.machine import Machine
from cloud.network import Underlay
from linux import pidfd
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
FIRST_BACKOFF, LAST_BACKOFF, STABLE = 0.1, 5.0, 10.0  # seconds; a process that ran STABLE starts afresh
STOP_TIMEOUT = 8.0
ROTATE_SECONDS = 60.0
REQUEST_LIMIT = 64 * 1024
CGROUP = "nanokube"


def cluster_cgroup(name: str) -> str:
    """The cgroup under which everything of a cluster runs."""
    return f"{CGROUP}/{name}"


def hold(what: str) -> socket.socket:
    """Claim something on this machine for as long as the socket is open. Raises OSError when another holds it.

    An abstract socket, because clusters may have different state folders and a claim must die with its holder.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0nanokube-{what}")
    except OSError:
        claim.close()
        raise
    return claim


def hold_index(index: int) -> socket.socket:
    """Claim a cluster's number: its ports and networks. Raises OSError when another cluster holds it."""
    return hold(str(index))


def is_held(index: int) -> bool:
    """Whether a running cluster has this number."""
    try:
        hold_index(index).close()
    except OSError:
        return True
    return False


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


def machine_of(config: ClusterConfig, paths: ClusterPaths, node: NodeConfig) -> Machine:
    """The machine of a node."""
    return Machine(
        name=node.name,
        underlay=underlay_of(config, paths),
        netns=paths.node_netns(node.name),
        address=config.node_ip(node),
        cgroup=f"{cluster_cgroup(config.name)}/{node.name}",
        cpu=node.cpu,
        memory=node.memory,
    )


def underlay_of(config: ClusterConfig, paths: ClusterPaths) -> Underlay:
    """The network of a cluster's machines."""
    return Underlay(str(config.index), config.underlay, paths.switch_netns, paths.host_netns)


@dataclass
class Managed:
    """One entry of the process table. `wanted` is False for what was stopped on purpose."""

    spec: ProcessSpec
    wanted: bool = True
    pid: int = 0
    fd: int = -1
    started: float = 0.0
    backoff: float = FIRST_BACKOFF
    retry_at: float = 0.0
    restarts: int = 0
    exit_code: int | None = None

    @property
    def running(self) -> bool:
        return self.pid != 0

    def describe(self) -> dict[str, Any]:
        spec = self.spec
        return {
            "name": spec.name,
            "component": spec.component,
            "node": spec.node,
            "pid": self.pid,
            "address": spec.address,
            "health": spec.health,
            "restarts": self.restarts,
            "exitCode": self.exit_code,
        }


class Supervisor:
    """The process table and its event loop."""

    def __init__(self, paths: ClusterPaths, config: ClusterConfig, etcd_binary: str) -> None:
        self._paths = paths
        self._config = config
        self._etcd = etcd_binary
        self._cgroups = Cgroups()
        self._selector = selectors.DefaultSelector()
        self._table: dict[str, Managed] = {}
        self._frozen: set[str] = set()
        self._stopping = False
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
        self._keep(plane[:1])  # etcd starts while the interpreter warms up
        self._warm()
        if self._config.has_machines:
            underlay_of(self._config, self._paths).build([self._config.service_cidr, self._config.load_balancer_cidr])
        self._keep(plane[1:])
        for node in self._config.nodes:
            self._boot(node)
        while not self._stopping:
            soon = self._until_retry()
            for key, _ in self._selector.select(ROTATE_SECONDS if soon is None else soon):
                if key.fileobj is control:
                    self._answer(control)
                elif key.fileobj is signals:
                    self._stopping = bool(signals.recv(64)) or self._stopping
                elif isinstance(key.data, Managed):
                    self._reap(key.data)
            self._retry()
            self._rotate()
        self._stop(list(self._table.values()))
        self._record()
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

    def _keep(self, specs: Iterable[ProcessSpec]) -> None:
        for spec in specs:
            managed = self._table.get(spec.name)
            if managed is None:
                managed = self._table[spec.name] = Managed(spec)
            managed.spec, managed.wanted, managed.backoff = spec, True, FIRST_BACKOFF
            if not managed.running:
                self._start(managed)
        self._record()

    def _boot(self, node: NodeConfig) -> None:
        machine = machine_of(self._config, self._paths, node)
        machine.build(self._cgroups)
        machine.underlay.set_port(machine.port, True)
        self._paths.node(node.name).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._keep(processes.worker(self._config, self._paths, node, machine.cgroup))

    def _start(self, managed: Managed) -> None:
        spec = managed.spec
        try:
            pid = os.fork()
        except OSError as error:  # neither memory nor pids last for ever, nor does their lack
            _tell(f"could not start {spec.name}: {error}")
            self._back_off(managed)
            return
        if pid == 0:
            self._child(spec)
        managed.pid, managed.started, managed.exit_code = pid, time.monotonic(), None
        managed.fd = os.pidfd_open(pid)
        self._selector.register(managed.fd, selectors.EVENT_READ, managed)

    def _child(self, spec: ProcessSpec) -> None:
        """Become the component; never returns."""
        code = 70
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            log = os.open(self._paths.logs / f"{spec.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.closerange(3, 4096)  # control socket, pidfds and epoll of the supervisor are not the child's
            if spec.node:
                machine_of(self._config, self._paths, self._config.node(spec.node)).enter(self._cgroups, os.getpid())
            else:
                self._cgroups.attach(f"{cluster_cgroup(self._config.name)}/control-plane", os.getpid())
            if spec.module:
                from setproctitle import setproctitle

                setproctitle(f"nanokube: {spec.component} {spec.node}".rstrip() + f" ({self._config.name})")
                code = importlib.import_module(f"{spec.module}.app").main(spec.argv)
            else:
                os.chdir(spec.folder)
                os.execv(spec.argv[0], spec.argv)
        except SystemExit as wish:
            code = wish.code if isinstance(wish.code, int) else 1
        except BaseException:  # noqa: BLE001  the child must not return into the supervisor's loop
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    # keep

    def _reap(self, managed: Managed) -> None:
        _, status = os.waitpid(managed.pid, 0)
        self._selector.unregister(managed.fd)
        os.close(managed.fd)
        managed.pid, managed.fd = 0, -1
        managed.exit_code = os.waitstatus_to_exitcode(status)
        # Killing a kubelet is an experiment, and it stays dead; one that failed by itself is restarted as any other.
        again = managed.spec.restart or managed.exit_code > 0
        if not (managed.wanted and again) or self._stopping:
            managed.wanted = managed.wanted and again
            self._record()
            return
        if time.monotonic() - managed.started > STABLE:
            managed.backoff = FIRST_BACKOFF
        self._back_off(managed)
        self._record()

    @staticmethod
    def _back_off(managed: Managed) -> None:
        managed.retry_at = time.monotonic() + managed.backoff
        managed.backoff = min(managed.backoff * 2, LAST_BACKOFF)

    def _until_retry(self) -> float | None:
        waiting = [each.retry_at for each in self._table.values() if each.wanted and not each.running]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def _retry(self) -> None:
        due = [each for each in self._table.values() if each.wanted and not each.running]
        for managed in due:
            if managed.retry_at <= time.monotonic() and not self._stopping:
                managed.restarts += 1
                self._start(managed)
                self._record()

    def _record(self) -> None:
        """What runs, for a later supervisor or `down` that finds this one dead."""
        table = [
            {"name": each.spec.name, "pid": each.pid, "start": pidfd.start_time(each.pid)}
            for each in self._table.values()
            if each.running
        ]
        scratch = self._paths.run / ".processes.json"
        try:
            scratch.write_bytes(msgspec.json.encode(table))
            scratch.replace(self._paths.run / "processes.json")
        except OSError as error:  # a full disk must not end the one that keeps the others alive
            _tell(f"could not note the processes down: {error}")

    def _stop(self, stopping: Sequence[Managed]) -> None:
        """SIGTERM, bounded patience, SIGKILL. etcd goes last, when nobody needs it any more."""
        for last in (False, True):
            group = [each for each in stopping if each.running and (each.spec.component == "etcd") == last]
            for managed in group:
                managed.wanted = False
                os.kill(managed.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT
            for managed in group:
                while managed.running:
                    if select.select([managed.fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                        self._reap(managed)
                    else:
                        os.kill(managed.pid, signal.SIGKILL)
                        deadline = time.monotonic() + STOP_TIMEOUT

    def _rotate(self) -> None:
        """Bound the logs of those who do not do it themselves: this process, and programs that are no components."""
        now = time.monotonic()
        if now < self._rotate_at:
            return
        self._rotate_at = now + ROTATE_SECONDS
        limit = processes.LOG_MEBIBYTES * log_files.MEBIBYTE
        try:
            own = log_files.own_file()
            if own is not None and own.stat().st_size > limit:
                log_files.redirect(own)
            for managed in self._table.values():
                log = self._paths.logs / f"{managed.spec.name}.log"
                if not managed.spec.module and managed.running and log.stat().st_size > limit:
                    cut_under(managed.pid, log)
        except OSError as error:
            _tell(f"could not rotate a log: {error}")

    # answer

    def _answer(self, control: socket.socket) -> None:
        try:
            connection, _ = control.accept()
        except OSError as error:  # gone already, or no descriptor left
            _tell(f"could not take a request: {error}")
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
                _tell(f"failed to carry out a request: {error!r}")
                reply = {"error": f"the supervisor failed: {error!r}"}
            with contextlib.suppress(OSError):
                connection.sendall(msgspec.json.encode(reply) + b"\n")

    def _command(self, request: dict[str, Any]) -> Any:
        match request["command"]:
            case "status":
                return [{**each.describe(), "frozen": each.spec.node in self._frozen} for each in self._table.values()]
            case "stop":
                self._stopping = True
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
        kubelet = self._table.get(f"kubelet-{node.name}")
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
        self._keep([processes.hollow_machines(self._config, self._paths)])

    def _hollow(self, wanted: HollowConfig | None) -> None:
        """Play these nodes from now on; None: none."""
        self._config.hollow = wanted
        layout.save(self._paths, self._config)
        known = self._table.pop("hollow", None)
        if known is not None:
            self._stop([known])
        if wanted is not None:
            in_child(lambda: pki.ensure(self._config, self._paths), "making certificates")
            self._keep([processes.hollow(self._config, self._paths, wanted)])
        self._record()

    def _entries(self, node: NodeConfig) -> list[Managed]:
        return [each for each in self._table.values() if each.spec.node == node.name]

    def _power_off(self, node: NodeConfig, machine: Machine) -> None:
        for managed in self._entries(node):
            managed.wanted = False
        machine.underlay.set_port(machine.port, False)
        if not machine.power_off(self._cgroups):
            raise CommandError(f"some process of {node.name} would not die")
        self._frozen.discard(node.name)

    def _forget(self, node: NodeConfig, machine: Machine) -> None:
        from runtime.cleanup import purge

        self._stop(self._entries(node))
        for managed in self._entries(node):
            del self._table[managed.spec.name]
        root = self._paths.node(node.name)
        purge(root / "runtime", root / "state")
        machine.remove(self._cgroups)
        remove_tree(root)
        for leftover in self._paths.pki.glob(f"kubelet-{node.name}.*"):
            leftover.unlink()
        self._config.nodes.remove(node)
        layout.save(self._paths, self._config)
        self._record()


def cut_under(pid: int, log: Path) -> None:
    """Copy a running program's log aside and empty it; the program is stopped meanwhile, so no line falls between."""
    os.kill(pid, signal.SIGSTOP)
    try:
        _await_stop(pid)
        log_files.make_room(log)
        shutil.copyfile(log, log_files.older(log, 1))
        os.truncate(log, 0)
    finally:
        os.kill(pid, signal.SIGCONT)


def _await_stop(pid: int) -> None:
    """Until the kernel has stopped every thread; it is asked for, not waited for, by the signal."""
    deadline = time.monotonic() + 1.0
    tasks = Path(f"/proc/{pid}/task")
    while time.monotonic() < deadline:
        states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks.iterdir()]
        if all(state in "Tt" for state in states):
            return
        time.sleep(0.001)
    raise OSError(f"process {pid} did not stop")


def _tell(text: str) -> None:
    """One line into the supervisor's log, if there is room for it."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def remove_tree(folder: Path) -> None:
    """Unmount everything below a folder and delete it; nothing there is fine."""
    from linux.mount import unmount_below

    unmount_below(str(folder))
    shutil.rmtree(folder, ignore_errors=True)


def main(paths: ClusterPaths, config: ClusterConfig, etcd_binary: str) -> None:
    """Run as the supervisor; returns when the cluster was stopped."""
    Supervisor(paths, config, etcd_binary).run()
