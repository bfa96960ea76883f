"""The API server process: flags, assembly, start and stop.

Owns: which parts exist and how they are put together (store → registry → admission → gate → doors), the checks behind
/livez and /readyz, and the order of a graceful stop. Started as `python -m apiserver` or by the supervisor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machinery import component
from machinery.component import ComponentContext
from machinery.log import kv
from machinery.tls import KeyPair

if TYPE_CHECKING:
    from apiserver.assembly import ApiServer
    from apiserver.audit.auditor import Auditor

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

log = logging.getLogger("apiserver")


def parser() -> argparse.ArgumentParser:
    made = component.parser("apiserver", "Kubernetes API over REST and gRPC, on etcd")
    made.add_argument("--etcd", default="", metavar="TARGET", help="unix:PATH or HOST:PORT of etcd")
    made.add_argument("--etcd-ca", type=Path, help="CA of etcd's certificate (TLS on TCP)")
    made.add_argument("--etcd-cert", type=Path, help="client certificate towards etcd")
    made.add_argument("--etcd-key", type=Path, help="its key")
    made.add_argument("--store", choices=("etcd", "memory"), default="etcd", help="memory: nothing survives a restart")
    made.add_argument("--bind", action="append", metavar="HOST:PORT", help="REST address; may be repeated")
    made.add_argument("--grpc-bind", action="append", metavar="HOST:PORT", help="gRPC address; may be repeated")
    made.add_argument("--tls-cert", type=Path, help="serving certificate of both doors")
    made.add_argument("--tls-key", type=Path, help="its key")
    made.add_argument("--client-ca", type=Path, help="CA of client certificates")
    made.add_argument("--token-auth-file", type=Path, help='lines of token,user,uid,"group1,group2"')
    made.add_argument("--service-cluster-ip-range", default="10.96.0.0/16", metavar="CIDR")
    made.add_argument("--service-account-key", type=Path, help="private key (PEM) that signs service account tokens")
    made.add_argument("--service-account-issuer", default="", metavar="URL")
    made.add_argument("--advertise-address", default="", metavar="IP", help="where the kubernetes Service leads")
    made.add_argument("--kubelet-ca", type=Path, help="CA of kubelets' serving certificates")
    made.add_argument("--kubelet-client-cert", type=Path, help="client certificate towards kubelets")
    made.add_argument("--kubelet-client-key", type=Path, help="its key")
    made.add_argument(
        "--component-health",
        action="append",
        default=[],
        metavar="NAME=unix:PATH",
        help="a component that componentstatuses tells of; may be repeated",
    )
    made.add_argument("--proxy-client-ca", type=Path, help="CA that aggregated servers know the API server by")
    made.add_argument("--proxy-client-cert", type=Path, help="client certificate towards aggregated servers")
    made.add_argument("--proxy-client-key", type=Path, help="its key")
    made.add_argument("--request-timeout", type=float, default=60.0, metavar="SECONDS", help="of requests that end")
    made.add_argument("--min-request-timeout", type=float, default=1800.0, metavar="SECONDS", help="of watches")
    made.add_argument(
        "--shutdown-delay-duration", type=float, default=0.0, metavar="SECONDS", help="serve on, unready, before a stop"
    )
    made.add_argument("--audit-policy-file", type=Path, help="what is recorded: audit.k8s.io/v1 Policy")
    made.add_argument("--audit-log-path", default="", metavar="PATH", help="where it is recorded; - is standard output")
    made.add_argument("--audit-log-maxage", type=int, default=0, metavar="DAYS", help="older files are deleted")
    made.add_argument("--audit-log-maxbackup", type=int, default=0, metavar="N", help="more files are deleted")
    made.add_argument("--audit-log-maxsize", type=int, default=100, metavar="MIB", help="a larger file is rotated")
    made.add_argument("--reuse-port", action="store_true", help="let several API servers share the REST port")
    return made


def _pair(args: argparse.Namespace, prefix: str, ca: str) -> KeyPair | None:
    paths = [getattr(args, name) for name in (ca, f"{prefix}_cert", f"{prefix}_key")]
    return KeyPair(*paths) if all(paths) else None


def check(args: argparse.Namespace) -> str:
    """What is wrong with the flags, or ""."""
    if args.store == "etcd" and not args.etcd:
        return "--etcd is required (or --store memory)"
    if not args.bind:
        return "--bind is required"
    given = [bool(path) for path in (args.tls_cert, args.tls_key, args.client_ca)]
    if any(given) and not all(given):
        return "--tls-cert, --tls-key and --client-ca belong together"
    if not any(given):
        for address in (*args.bind, *(args.grpc_bind or ())):
            if address.rpartition(":")[0].strip("[]") not in LOOPBACK:
                return f"{address}: without --tls-cert only loopback addresses are served"
    for each in args.component_health:
        if not all(each.partition("=unix:")):
            return f"--component-health: want NAME=unix:PATH, not {each}"
    for name in ("tls_cert", "tls_key", "client_ca", "token_auth_file", "service_account_key"):
        path: Path | None = getattr(args, name)
        if path is not None and not path.is_file():
            return f"--{name.replace('_', '-')}: no such file: {path}"
    if args.request_timeout <= 0 or args.min_request_timeout <= 0:
        return "--request-timeout and --min-request-timeout must be positive"
    if not 0 <= args.shutdown_delay_duration <= 3600:
        return "--shutdown-delay-duration must lie between 0 and 3600"
    return check_audit(args)


def check_audit(args: argparse.Namespace) -> str:
    """What is wrong with the flags of the audit log, or ""."""
    if args.audit_policy_file is None:
        return "--audit-log-path needs --audit-policy-file" if args.audit_log_path else ""
    if not args.audit_log_path:
        return "--audit-policy-file needs --audit-log-path"
    if min(args.audit_log_maxage, args.audit_log_maxbackup, args.audit_log_maxsize) < 0:
        return "--audit-log-maxage, --audit-log-maxbackup and --audit-log-maxsize must not be negative"
    from apiserver.audit.policy import PolicyError, load

    try:
        load(args.audit_policy_file)
    except PolicyError as error:
        return f"--audit-policy-file: {error}"
    return ""


def _auditor(args: argparse.Namespace) -> Auditor | None:
    if args.audit_policy_file is None:
        return None
    from apiserver.audit.auditor import Auditor
    from apiserver.audit.log import AuditLog
    from apiserver.audit.policy import load

    log_file = AuditLog(
        args.audit_log_path,
        max_size=args.audit_log_maxsize,
        max_age=args.audit_log_maxage,
        max_backup=args.audit_log_maxbackup,
    )
    return Auditor(load(args.audit_policy_file), log_file)


def options(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as what `assembly.ApiServer` takes."""
    return {
        "etcd": args.etcd if args.store == "etcd" else "",
        "etcd_pair": _pair(args, "etcd", "etcd_ca"),
        "binds": tuple(args.bind),
        "grpc_binds": tuple(args.grpc_bind or ()),
        "tls": _pair(args, "tls", "client_ca"),
        "token_file": args.token_auth_file,
        "service_range": args.service_cluster_ip_range,
        "service_account_key": args.service_account_key,
        "service_account_issuer": args.service_account_issuer,
        "advertise": args.advertise_address,
        "kubelet_pair": _pair(args, "kubelet_client", "kubelet_ca"),
        "components": dict(each.split("=unix:", 1) for each in args.component_health),
        "proxy_pair": _pair(args, "proxy_client", "proxy_client_ca"),
        "reuse_port": args.reuse_port,
        "auditor": _auditor(args),
        "request_timeout": args.request_timeout,
        "min_request_timeout": args.min_request_timeout,
        "shutdown_delay": args.shutdown_delay_duration,
    }


async def serve(args: argparse.Namespace, context: ComponentContext) -> None:
    """Until asked to stop."""
    from apiserver.assembly import ApiServer, Settings

    if args.store == "memory":
        log.warning("Keeping all objects in memory: nothing survives a restart")
    server: ApiServer = ApiServer(Settings(**options(args)), context.clock)
    for name in ("etcd", "rbac", "bootstrap"):
        context.health.ready(name, False)
    async with server.running():
        for address in server.rest_addresses:
            log.info("Serving REST", extra=kv(address=address))
        ready = asyncio.ensure_future(server.wait_ready())
        stopping = asyncio.ensure_future(context.stop.wait())
        try:
            await asyncio.wait({ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
                for name in ("etcd", "rbac", "bootstrap"):
                    context.health.ready(name)
                log.info("Ready")
            await stopping
        finally:
            for task in (ready, stopping):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(ready, stopping, return_exceptions=True)


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    wrong = check(args)
    if wrong:
        parser().error(wrong)

    async def run(context: ComponentContext) -> None:
        await serve(args, context)

    return component.run("apiserver", args, run)
