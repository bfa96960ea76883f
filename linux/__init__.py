"""Kernel interfaces used by nodes, by name: netlink, network namespaces, cgroups, mounts, pidfds, capability probes.

Owns the system calls and file formats; knows nothing of Kubernetes. Every failure is an `OSError` that names what was
attempted on what. Nothing here runs at import, keeps global state or starts a thread that outlives its call.

| module | what it offers |
|---|---|
| `linux.netlink` | `Netlink`: links, veth pairs, bridges, addresses, routes, neighbours by raw rtnetlink |
| `linux.netns` | `create(path)`, `delete(path)`, `run_in(path, fn)`, `enter(path)`, `pin(kinds, paths)` |
| `linux.cgroup` | `Cgroups`: one driver for v1, v2 and hybrid; `Limits`, `Sample`, `Sampler` |
| `linux.mount` | `mount`, `umount`, `bind`, `overlay`, `mounts_below`, `unmount_below` |
| `linux.pidfd` | `start_time(pid)`, `ProcessRef`, `wait(pidfd)` on the event loop |
| `linux.probe` | `probe()`: what this machine allows (capabilities, cgroup layout, overlay) |
"""
