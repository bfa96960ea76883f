"""CRI v1 server over conmon + crun: sandboxes, containers, images, streams, statistics of one node.

Owns everything below the CRI socket: namespaces, pod addresses, OCI bundles, image content, exec and attach streams.
Never talks to the API server and never decides what should run. Called by the kubelet over gRPC, and by the command
line through `runtime.cleanup` (tear-down of a node whose runtime may be dead) and `runtime.images` (image archives).

What is true is on disk and in the kernel, never in this process: after `kill -9` the containers and their conmons live
on, and the next runtime adopts them with logs, exit codes and addresses. If a conmon died, its container is killed and
reported as exited with reason `ContainerStatusUnknown` and code 137.

Process: `python -m runtime --listen unix:PATH --root DIR --state DIR --image-store DIR --node NAME --cgroup-parent G
[--host-netns PATH] [--node-ip IP] [--insecure-registry HOST]…`, run inside the machine's network namespace.

| flag | meaning |
|---|---|
| `--root` | what outlives a reboot: records, bundles, writable layers (needs a real file system for overlay) |
| `--state` | what does not: pinned namespaces, /dev/shm mounts, crun's state, exit files |
| `--image-store` | image content, shared by the nodes of a cluster |
| `--cgroup-parent` | parent of pods whose `PodSandboxConfig.linux.cgroup_parent` is empty |
| `--host-netns` | the namespace from which registries are reached (default: this process's own) |

What a kubelet can rely on, beyond the CRI's own words:

- Order: `UpdateRuntimeConfig(pod_cidr)` once before the first pod with its own network (it is remembered on disk; the
  condition `NetworkReady` of `Status` is false until then), then `RunPodSandbox` → `PullImage`/`ImageStatus` →
  `CreateContainer` → `StartContainer`. All verbs are idempotent: stopping or removing what is gone succeeds.
- `cgroup_parent` is a path relative to the controllers' mounts (`/nanokube/demo/worker-1/kubepods/burstable/pod<uid>`);
  the runtime creates it if needed without limits, containers go to `<cgroup_parent>/<container id>`, and it is the
  kubelet's to limit and to remove. RemovePodSandbox removes it when it is empty.
- `GetContainerEvents` replays nothing: subscribe first, then list. Each event carries the sandbox's status and the
  statuses of all its containers. An exit is reported within about a millisecond; there is no need to poll.
- `CreateContainer` fails only for bad configuration. A command that cannot be started fails `StartContainer` with
  UNKNOWN and leaves the container EXITED with code 128 and reason `StartError`, as containerd does.
- Reasons of exited containers: `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
- gRPC codes: NOT_FOUND for an unknown id or image, INVALID_ARGUMENT for bad configuration, FAILED_PRECONDITION for a
  verb in the wrong state, DEADLINE_EXCEEDED for an ExecSync past its timeout, UNAUTHENTICATED / NOT_FOUND /
  UNAVAILABLE for pulls that were refused / unknown to the registry / could not reach it. Details are for users' eyes.
- `PullImage` of an image that was built in or loaded here succeeds when its registry cannot be reached;
  `ImageStatus(verbose=True).info["nanokube.pull"]` then holds the sentence for the pod's event. `Image.pinned` marks
  loaded and built-in images: image garbage collection should leave them alone.
- `Exec`, `Attach` and `PortForward` return `http://127.0.0.1:PORT/<verb>/<token>`: connect by WebSocket once, within a
  minute, with sub-protocol `v5.channel.k8s.io` or `v4.channel.k8s.io`. Binary frames; the first byte is the channel:
  0 stdin, 1 stdout, 2 stderr, 3 error (one Kubernetes Status as JSON at the end), 4 resize (`{"Width":…,"Height":…}`),
  255 closes the channel named by the next byte (v5). For port-forward, channel 2i is the data and 2i+1 the error of
  port i; both start with the port as two little-endian bytes.
- `PodSandboxStatus(verbose=True).info` has `netns` (path) and `pid`; `ContainerStatus(verbose=True).info` has `pid`,
  `cgroup` and `rootfs`, all as JSON.
- /etc/resolv.conf (from DNSConfig), /etc/hostname, /etc/hosts and /dev/shm are provided unless the config mounts them.
- Container names inside a sandbox are unique by (name, attempt): creating the same pair again is ALREADY_EXISTS.
- SIGTERM ends this process and leaves the containers running.
- A sandbox whose pid namespace is shared asks for it explicitly: `namespace_options.pid` of sandbox and containers is
  POD (0, also what an unset field means) for `shareProcessNamespace`, CONTAINER otherwise.
- Host ports (`port_mappings`) of pods with their own network are forwarded by nftables in the machine's namespace.

`proto/runtime/v1/images.proto` adds `NodeImages.Import` on the same socket: image archives (docker-save or OCI layout).
`runtime.fake.FakeRuntime` implements the same services in memory for tests of callers.
"""
