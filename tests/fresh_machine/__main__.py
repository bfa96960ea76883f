"""Builds the machine, enters it, runs the record; exit code of the first step that failed."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from linux import netns
from linux.cgroup import Cgroups
from linux.mount import unmount_below
from linux.netlink import Netlink

CHECKOUT = Path(__file__).resolve().parents[2]
HOST_LINK, TABLE = "nk-fresh", "nanokube-fresh"
HOST_IP, OWN_IP, PREFIX = "10.251.0.1", "10.251.0.2", 30
CGROUP = "nanokube-fresh"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
AUTHORITIES = "/etc/authorities.crt"  # not the bundle's own place: installing ca-certificates writes there
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")

# Runs as process 1 of the new machine, before its root is entered.
ENTER = r"""
set -eu
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
grep -E ' - cgroup2? ' /proc/self/mountinfo | while read -r _ _ _ _ point _ rest; do
    type=$(echo "$rest" | sed 's/.*- \([a-z0-9]*\) .*/\1/'); options=$(echo "$rest" | sed 's/.* //')
    target="$root$point"
    mkdir -p "$target"
    if [ "$type" = cgroup2 ]; then mount -t cgroup2 cgroup2 "$target"
    else
        skip='^(rw|ro|xattr|clone_children|release_agent=.*)$'
        controllers=$(echo "$options" | tr , '\n' | grep -vE "$skip" | paste -sd,)
        mount -t cgroup -o "$controllers" cgroup "$target"
    fi
done
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
cd "$root"
mkdir -p .old
pivot_root . .old
umount -l /.old
cd /root
exec "$@"
"""

SESSION = r"""
set -eu
step() { echo "=== $* ($(date -u +%H:%M:%S))"; }
step "a machine with: $(. /etc/os-release; echo "$PRETTY_NAME"), $(python3 -V), $(git --version)"
git clone -q /checkout nanokube && cd nanokube
step ./nanokube up
./nanokube up
if command -v kubectl >/dev/null; then kubectl=kubectl; else kubectl="./nanokube kubectl"; fi
$kubectl create deployment web --image=busybox --replicas=3 -- httpd -f -p 8080
$kubectl rollout status deployment/web --timeout=60s
$kubectl get pods -o wide
./nanokube status
step ./nanokube down
./nanokube down
step ./nanokube test "$@"
./nanokube test "$@"
step done
test -z "$(ls -A /var/lib/nanokube | grep -vE "^(tools|tests.lock)$" || true)"
"""


def mirror() -> str:
    """The Debian mirror that this machine itself installs from."""
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in listing.splitlines():
        origin, _, uri = line.partition(" ")
        if origin == "Debian" and "security" not in uri:
            return uri.rstrip("/")
    raise SystemExit("no Debian mirror among this machine's package sources")


def build(root: Path, suite: str) -> None:
    """debootstrap the machine (kept in a tarball beside it: a second run is quicker), and hand it this one's trust."""
    cache = root.with_name(f"{suite}.tar")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    if cache.exists():
        subprocess.run(["tar", "-C", root, "-xf", cache], check=True)
    else:
        include = "--include=python3,git"
        subprocess.run(["debootstrap", "--variant=minbase", include, suite, root, mirror()], check=True)
        subprocess.run(["tar", "-C", root, "-cf", cache, "."], check=True)
    # What belongs to the network the machine stands in: resolver, certificate authorities, pip settings.
    for file, name in ((Path("/etc/resolv.conf"), "etc/resolv.conf"), (BUNDLE, AUTHORITIES)):
        if file.exists():
            target = root / str(name).lstrip("/")
            target.unlink(missing_ok=True)
            shutil.copy(file.resolve(), target)
    (root / "checkout").mkdir()


def cable(path: Path) -> str:
    """A network namespace that reaches the outside through this machine; returns the former forwarding setting."""
    netns.create(str(path))
    with Netlink() as nl:
        nl.delete_link(HOST_LINK, missing_ok=True)
        fd = os.open(path, os.O_RDONLY)
        nl.add_veth(HOST_LINK, "eth0", peer_ns=fd)
        os.close(fd)
        nl.add_address(HOST_LINK, HOST_IP, PREFIX)

    def inside() -> None:
        with Netlink() as own:
            own.set_up("eth0")
            own.add_address("eth0", OWN_IP, PREFIX)
            own.add_route("default", via=HOST_IP, dev="eth0")

    netns.run_in(str(path), inside)
    rules = (
        f"add table ip {TABLE}\n"
        f"add chain ip {TABLE} post {{ type nat hook postrouting priority srcnat; }}\n"
        f"add rule ip {TABLE} post ip saddr {HOST_IP}/{PREFIX} masquerade\n"
    )
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    before = FORWARDING.read_text()
    FORWARDING.write_text("1")
    return before


def run(root: Path, namespace: Path, arguments: Sequence[str]) -> int:
    """Run the record in the machine; returns its exit code."""
    cgroups = Cgroups()
    cgroups.create(CGROUP)
    session = root / "root" / "session.sh"
    session.write_text(SESSION)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "TERM": "dumb",
        "PIP_CERT": AUTHORITIES,
        **{key: value for key, value in os.environ.items() if key.startswith("PIP_INDEX") or key.endswith("_proxy")},
    }
    argv = [
        "nsenter", f"--net={namespace}",
        "unshare", "--mount", "--pid", "--cgroup", "--ipc", "--uts", "--fork", "--kill-child",
        "sh", "-c", ENTER, "sh", str(root), "sh", "/root/session.sh", *arguments,
    ]  # fmt: skip
    process = subprocess.Popen(["sh", "-c", 'read _ && exec "$@"', "sh", *argv], env=environment, stdin=subprocess.PIPE)
    assert process.stdin is not None
    cgroups.attach(CGROUP, process.pid)  # before it starts: its cgroup namespace is rooted there
    process.stdin.write(b"go\n")
    process.stdin.close()
    try:
        return process.wait()
    finally:
        process.kill()
        cgroups.kill(CGROUP)
        cgroups.remove(CGROUP)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.fresh_machine", description=__doc__)
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--folder", type=Path, default=Path("/var/lib/nanokube-fresh"))
    parser.add_argument("arguments", nargs="*", help="for `./nanokube test`; default: everything")
    options = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise SystemExit("needs root and debootstrap")
    root, namespace = options.folder / "root", options.folder / "netns"
    started = time.monotonic()
    netns.delete(str(namespace))
    unmount_below(str(root))
    build(root, options.suite)
    subprocess.run(["git", "clone", "-q", "--bare", CHECKOUT, root / "checkout"], check=True)
    before = cable(namespace)
    try:
        code = run(root, namespace, options.arguments)
    finally:
        FORWARDING.write_text(before)
        subprocess.run(["nft", "delete", "table", "ip", TABLE], check=False)
        netns.delete(str(namespace))
        unmount_below(str(root))
        shutil.rmtree(root, ignore_errors=True)
    print(f"fresh machine: exit {code} after {time.monotonic() - started:.0f} s", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
