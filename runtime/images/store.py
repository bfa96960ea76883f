"""Image content on disk, shared by the nodes of a cluster: blobs, unpacked layers, image records, loaded names.

Owns the folder given as `--image-store`. Everything is written to a temporary name and renamed, under a file lock per
object, so several processes may fill one store at once and a killed one leaves nothing half-made. Blocking: call from
a thread. Called by the importer, the puller and the image table of a node.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from runtime.faults import BadConfig, RuntimeFault, UnknownId
from runtime.images import unpack as unpacker

LOCK_TIMEOUT = 300.0
IN_PROCESS_LIMIT = 4 << 20  # bytes of a layer blob that are unpacked without a process for it
_CHUNK = 1 << 20


class ImageConfig(msgspec.Struct, omit_defaults=True):
    """What of an OCI image config a container needs."""

    entrypoint: list[str] = []
    cmd: list[str] = []
    env: list[str] = []
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    volumes: list[str] = []
    labels: dict[str, str] = {}


class ImageRecord(msgspec.Struct, omit_defaults=True):
    """An image whose layers are unpacked. `id` is the digest of its config; layers are lowest first."""

    id: str
    layers: list[str]
    size: int
    config: ImageConfig
    blobs: list[str] = []
    created: str = ""


class Loaded(msgspec.Struct, omit_defaults=True):
    """Names that were built in or loaded on this machine, for every node of the cluster."""

    names: dict[str, str] = {}
    built_in: list[str] = []


def parse_config(raw: bytes) -> tuple[ImageConfig, list[str], str]:
    """(config, diff ids, creation time) from an OCI or Docker image config. Raises BadConfig."""
    try:
        document: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
        inner = document.get("config") or {}
        config = ImageConfig(
            entrypoint=list(inner.get("Entrypoint") or []),
            cmd=list(inner.get("Cmd") or []),
            env=list(inner.get("Env") or []),
            working_dir=inner.get("WorkingDir") or "",
            user=str(inner.get("User") or ""),
            stop_signal=inner.get("StopSignal") or "",
            volumes=sorted(inner.get("Volumes") or {}),
            labels=dict(inner.get("Labels") or {}),
        )
        diff_ids = [str(digest) for digest in (document.get("rootfs") or {})["diff_ids"]]
        return config, diff_ids, str(document.get("created") or "")
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadConfig(f"image config cannot be read: {error}") from error


def digest_of(raw: bytes) -> str:
    """sha256 digest of bytes."""
    return "sha256:" + hashlib.sha256(raw).hexdigest()


class ContentStore:
    """One image store folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        for part in ("blobs/sha256", "layers", "images", "locks", "refs", "tmp"):
            (self.root / part).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the store-wide lock of `name`, waiting a bounded time for other threads and processes."""
        fd = os.open(
            self.root / "locks" / name.replace(":", "_").replace("/", "_"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        )
        try:
            deadline, pause = time.monotonic() + LOCK_TIMEOUT, 0.002
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise RuntimeFault(f"image store is busy: {name}", "UNAVAILABLE") from None
                    time.sleep(pause)
                    pause = min(pause * 2, 0.1)
            yield
        finally:
            os.close(fd)

    def temporary(self) -> Path:
        """A fresh path on the store's file system."""
        return self.root / "tmp" / f"{os.getpid()}-{secrets.token_hex(6)}"

    # blobs

    def blob(self, digest: str) -> Path:
        """Path of a blob, whether present or not."""
        kind, _, value = digest.partition(":")
        if kind != "sha256" or len(value) != 64 or not all(char in "0123456789abcdef" for char in value):
            raise BadConfig(f"digest {digest!r} is not supported")
        return self.root / "blobs" / "sha256" / value

    def put_blob(self, source: BinaryIO, digest: str = "") -> str:
        """Copy a stream into the store, checking its digest if one is expected. Returns the digest."""
        temporary = self.temporary()
        hasher = hashlib.sha256()
        try:
            with temporary.open("wb") as target:
                while chunk := source.read(_CHUNK):
                    hasher.update(chunk)
                    target.write(chunk)
            actual = "sha256:" + hasher.hexdigest()
            if digest and actual != digest:
                raise RuntimeFault(f"content digest mismatch: expected {digest}, got {actual}", "DATA_LOSS")
            temporary.rename(self.blob(actual))
        finally:
            temporary.unlink(missing_ok=True)
        return actual

    # layers

    def layer(self, diff_id: str) -> Path:
        """Folder of an unpacked layer."""
        return self.root / "layers" / self.blob(diff_id).name

    def unpack(self, blob: str, diff_id: str) -> None:
        """Unpack a layer blob unless that was done; checks the uncompressed digest."""
        target = self.layer(diff_id)
        if target.is_dir():
            return
        with self.lock(f"layer-{diff_id}"):
            if target.is_dir():
                return
            temporary = self.temporary()
            try:
                actual = self._run_unpack(self.blob(blob), temporary)
                if actual != diff_id:
                    raise RuntimeFault(f"layer digest mismatch: expected {diff_id}, got {actual}", "DATA_LOSS")
                temporary.rename(target)
            finally:
                if temporary.exists():
                    shutil.rmtree(temporary, ignore_errors=True)

    @staticmethod
    def _run_unpack(blob: Path, target: Path) -> str:
        """Unpack in a process of its own: tar is all interpreter work and would stall the event loop."""
        if blob.stat().st_size < IN_PROCESS_LIMIT:
            try:
                return unpacker.unpack(str(blob), str(target))
            except (unpacker.LayerError, OSError) as error:
                raise RuntimeFault(f"failed to extract layer: {error}") from error
        command = [sys.executable, "-I", "-S", unpacker.__file__, str(blob), str(target)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode != 0:
            raise RuntimeFault(f"failed to extract layer: {done.stderr.strip()[-500:]}")
        return done.stdout.strip()

    # images

    def add_image(self, config: bytes, layers: Iterable[str]) -> ImageRecord:
        """Record an image whose config and layer blobs (lowest first) are in the store; unpacks what is missing."""
        blobs = list(layers)
        parsed, diff_ids, created = parse_config(config)
        if len(blobs) != len(diff_ids):
            raise BadConfig(f"image has {len(blobs)} layers but its config names {len(diff_ids)}")
        identity = digest_of(config)
        for blob, diff_id in zip(blobs, diff_ids, strict=True):
            self.unpack(blob, diff_id)
        size = sum(self.blob(blob).stat().st_size for blob in blobs if self.blob(blob).exists()) + len(config)
        record = ImageRecord(identity, diff_ids, size, parsed, blobs, created)
        self._replace(self.root / "images" / f"{self.blob(identity).name}.json", msgspec.json.encode(record))
        return record

    def image(self, identity: str) -> ImageRecord:
        """The image with this id. Raises UnknownId."""
        try:
            raw = (self.root / "images" / f"{self.blob(identity).name}.json").read_bytes()
        except FileNotFoundError:
            raise UnknownId(f"image {identity} not found") from None
        return msgspec.json.decode(raw, type=ImageRecord)

    def ids(self) -> list[str]:
        """Ids of all images whose content is here."""
        return sorted(f"sha256:{path.stem}" for path in (self.root / "images").glob("*.json"))

    def lowers(self, image: ImageRecord) -> list[str]:
        """Layer folders, topmost first, as overlay wants them."""
        return [str(self.layer(diff_id)) for diff_id in reversed(image.layers)]

    def size_on_disk(self) -> int:
        """Bytes that records say the images use, each layer's blob once."""
        seen: dict[str, int] = {}
        for identity in self.ids():
            with suppress(UnknownId):
                for blob in self.image(identity).blobs:
                    path = self.blob(blob)
                    seen[blob] = path.stat().st_size if path.exists() else 0
        return sum(seen.values())

    # names that hold for every node

    def loaded(self) -> Loaded:
        """Names built in or loaded on this machine."""
        try:
            return msgspec.json.decode((self.root / "loaded.json").read_bytes(), type=Loaded)
        except FileNotFoundError:
            return Loaded()

    def add_loaded(self, names: Iterable[str], identity: str, *, built_in: bool = False) -> None:
        """Name an image for every node of the cluster."""
        with self.lock("loaded"):
            loaded = self.loaded()
            for name in names:
                loaded.names[name] = identity
                if built_in and name not in loaded.built_in:
                    loaded.built_in.append(name)
                elif not built_in and name in loaded.built_in:
                    loaded.built_in.remove(name)
            self._replace(self.root / "loaded.json", msgspec.json.encode(loaded))

    # references by nodes, and removal

    def hold(self, identity: str, node: str) -> None:
        """Note that a node has this image."""
        folder = self.root / "refs" / self.blob(identity).name
        folder.mkdir(exist_ok=True)
        (folder / node).touch()

    def release(self, identity: str, node: str) -> None:
        """Note that a node no longer has it; content that no node and no loaded name needs is deleted."""
        with self.lock("remove"):
            folder = self.root / "refs" / self.blob(identity).name
            (folder / node).unlink(missing_ok=True)
            if (folder.is_dir() and any(folder.iterdir())) or identity in self.loaded().names.values():
                return
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(UnknownId):
                self._delete(self.image(identity))

    def _delete(self, gone: ImageRecord) -> None:
        (self.root / "images" / f"{self.blob(gone.id).name}.json").unlink(missing_ok=True)
        others = [self.image(identity) for identity in self.ids()]
        layers = {layer for image in others for layer in image.layers}
        blobs = {blob for image in others for blob in image.blobs}
        for layer in set(gone.layers) - layers:
            victim = self.temporary()
            with suppress(FileNotFoundError):
                self.layer(layer).rename(victim)  # gone at once, even if deleting takes long
                shutil.rmtree(victim, ignore_errors=True)
        for blob in {*gone.blobs, gone.id} - blobs:
            self.blob(blob).unlink(missing_ok=True)

    def _replace(self, path: Path, raw: bytes) -> None:
        temporary = self.temporary()
        temporary.write_bytes(raw)
        temporary.rename(path)
