"""resolv.conf of a pod by its dnsPolicy, and the pod's names. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.models import core_v1

MAX_NAMESERVERS = 3
MAX_SEARCHES = 32
NDOTS = "ndots:5"
HOSTNAME_LIMIT = 63


@dataclass(frozen=True, slots=True)
class Resolver:
    """nameserver, search and options lines."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> Resolver:
    """The machine's own resolver."""
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", address, *_]:
                servers.append(address)
            case ["search", *names]:
                searches = [name.rstrip(".") or "." for name in names]
            case ["options", *flags]:
                options = flags
    return Resolver(tuple(servers), tuple(searches), tuple(options))


def pod_resolver(
    spec: core_v1.PodSpec, namespace: str, host: Resolver, cluster_dns: Sequence[str], domain: str
) -> Resolver:
    """What goes into the pod's resolv.conf."""
    policy = spec.dnsPolicy or "ClusterFirst"
    if policy == "ClusterFirst" and spec.hostNetwork:
        policy = "Default"
    if policy == "None":
        base = Resolver()
    elif policy == "Default" or not cluster_dns:
        base = host
    else:
        own = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain) if domain else ()
        base = Resolver(tuple(cluster_dns), _unique((*own, *host.searches)), _options(host.options, (NDOTS,)))
    extra = spec.dnsConfig
    if extra is not None:
        added = tuple(
            option.name if option.value is None else f"{option.name}:{option.value}"
            for option in extra.options or ()
            if option.name
        )
        base = Resolver(
            _unique((*base.servers, *(extra.nameservers or ()))),
            _unique((*base.searches, *(extra.searches or ()))),
            _options(base.options, added),
        )
    return Resolver(base.servers[:MAX_NAMESERVERS], base.searches[:MAX_SEARCHES], base.options)


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _options(base: Sequence[str], over: Sequence[str]) -> tuple[str, ...]:
    """Later options replace earlier ones of the same name."""
    merged = {option.partition(":")[0]: option for option in base}
    merged.update({option.partition(":")[0]: option for option in over})
    return tuple(merged.values())


def hostname(spec: core_v1.PodSpec, pod_name: str) -> str:
    """The pod's host name: its own wish or its name cut to what the kernel takes."""
    return (spec.hostnameOverride or spec.hostname or pod_name)[:HOSTNAME_LIMIT].rstrip("-.")


def hosts_file(spec: core_v1.PodSpec, pod_name: str, namespace: str, domain: str, ips: Sequence[str]) -> str:
    """/etc/hosts of a pod with its own network."""
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    name = hostname(spec, pod_name)
    for ip in ips:
        if spec.subdomain:
            lines.append(f"{ip}\t{name}.{spec.subdomain}.{namespace}.svc.{domain}\t{name}")
        else:
            lines.append(f"{ip}\t{name}")
    if spec.hostAliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += [f"{alias.ip}\t" + "\t".join(alias.hostnames or ()) for alias in spec.hostAliases]
    return "\n".join(lines) + "\n"
