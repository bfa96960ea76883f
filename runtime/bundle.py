"""A container's folder before its start: root file system, OCI configuration, record.

Blocking (a few milliseconds): called from a thread by the container lifecycle, which also removes the folder.
"""

from __future__ import annotations

import errno
from pathlib import Path

from linux import mount
from proto.cri.v1 import cri_pb2 as cri
from runtime import records, spec
from runtime.container_plans import device_node
from runtime.faults import BadConfig, RuntimeFault
from runtime.images.store import ContentStore, ImageRecord
from runtime.records import ContainerRecord
from runtime.spec import Ability, DeviceNode, SandboxView
from runtime.users import plan_user, read_in_root


def prepare(
    folder: Path,
    record: ContainerRecord,
    config: cri.ContainerConfig,
    image: ImageRecord,
    view: SandboxView,
    store: ContentStore,
    ability: Ability,
) -> None:
    """Fill `folder`: mounted `rootfs`, `config.json`, `config.pb`, `record.json`. Raises BadConfig."""
    for part in ("rootfs", "upper", "work"):
        (folder / part).mkdir(parents=True)
    for each in config.mounts:
        resolve_mount(each)
    devices = [resolve_device(each) for each in config.devices]
    rootfs = str(folder / "rootfs")
    mount_rootfs(folder, store.lowers(image))
    security = config.linux.security_context
    user = plan_user(
        read_in_root(rootfs, "/etc/passwd"),
        read_in_root(rootfs, "/etc/group"),
        image_user=image.config.user,
        uid=security.run_as_user.value if security.HasField("run_as_user") else None,
        gid=security.run_as_group.value if security.HasField("run_as_group") else None,
        username=security.run_as_username,
        supplemental=security.supplemental_groups,
        strict=security.supplemental_groups_policy == cri.Strict,
    )
    record.uid, record.gid, record.groups = user.uid, user.gid, list(user.groups)
    built = spec.build(
        config,
        identity=record.id,
        image=image.config,
        sandbox=view,
        user=user,
        ability=ability,
        devices=devices,
    )
    (folder / "config.json").write_bytes(spec.encode(built))
    if record.log_path:
        Path(record.log_path).parent.mkdir(parents=True, exist_ok=True)
    (folder / "config.pb").write_bytes(config.SerializeToString())
    records.save(folder, record)


def mount_rootfs(folder: Path, lowers: list[str]) -> None:
    """Stack the image's layers under a writable one."""
    try:
        mount.overlay(str(folder / "rootfs"), lowers, str(folder / "upper"), str(folder / "work"))
    except OSError as error:
        hint = ""
        if error.errno == errno.EINVAL:
            hint = "; containers need a real file system below them (ext4, xfs, btrfs), not another overlay"
        raise RuntimeFault(f"failed to mount rootfs in {folder}: {error.strerror}{hint}") from error


def resolve_mount(wanted: cri.Mount) -> None:
    """Follow links on the host side of a mount. Raises BadConfig for one that cannot be."""
    if wanted.HasField("image"):
        raise BadConfig("image volumes are not supported by this runtime")
    if not wanted.container_path.startswith("/"):
        raise BadConfig(f'mount path "{wanted.container_path}" must be absolute')
    try:
        wanted.host_path = str(Path(wanted.host_path).resolve(strict=True))
    except OSError as error:
        reason = (error.strerror or "cannot be used").lower()
        raise BadConfig(f'failed to mount "{wanted.host_path}" to "{wanted.container_path}": {reason}') from error


def resolve_device(wanted: cri.Device) -> DeviceNode:
    """The device a container asked for. Raises BadConfig."""
    found = device_node(Path(wanted.host_path), wanted.container_path, wanted.permissions or "rwm")
    if found is None:
        raise BadConfig(f'"{wanted.host_path}" is not a device')
    return found
