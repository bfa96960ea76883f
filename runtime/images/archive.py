"""Image archives: `docker save` output and OCI layouts in a tar, gzipped or not.

Reads the archive once into the content store, then records its images. Blocking; called from a thread by the runtime's
import method, and directly by the command line.
"""

from __future__ import annotations

import gzip
import platform
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

from runtime.faults import BadConfig
from runtime.images.reference import normalize
from runtime.images.store import ContentStore, ImageRecord

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}.get(platform.machine(), platform.machine())
_METADATA_LIMIT = 8 << 20


class LoadedImage(msgspec.Struct):
    """An image that an archive brought, and the names it now has."""

    image: ImageRecord
    names: list[str]


def pick_platform(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """The manifest of an index that fits this machine. Raises BadConfig."""
    for entry in manifests:
        fits = entry.get("platform") or {}
        if fits.get("os", "linux") == "linux" and fits.get("architecture", ARCHITECTURE) == ARCHITECTURE:
            return entry
    raise BadConfig(f"no match for platform linux/{ARCHITECTURE} in manifest")


def load(store: ContentStore, path: str | Path, default_name: str = "") -> list[LoadedImage]:
    """Load an archive file; its images get their names on every node of the cluster. Raises BadConfig."""
    path = Path(path)
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            source: IO[bytes] = gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[assignment]
            entries = _ingest(store, source)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadConfig(f"{path.name} is not an image archive: {error}") from error
    except OSError as error:
        raise BadConfig(f"cannot read {path.name}: {error.strerror or error}") from error
    if "manifest.json" in entries.documents:
        found = _docker(store, entries)
    elif "index.json" in entries.documents:
        found = _oci(store, entries)
    else:
        raise BadConfig(f"{path.name} is not an image archive: neither manifest.json nor index.json in it")
    if default_name and len(found) == 1 and not found[0].names:
        found[0].names.append(str(normalize(default_name)))
    for each in found:
        store.add_loaded(each.names, each.image.id)
    return found


class _Entries:
    """What was read: metadata by name, and the digest of every file that became a blob."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.digests: dict[str, str] = {}

    def read(self, name: str, store: ContentStore) -> bytes:
        name = self.resolve(name)
        if name in self.documents:
            return self.documents[name]
        digest = self.digests.get(name)
        if digest is None:
            raise BadConfig(f"image archive lacks {name}")
        return store.blob(digest).read_bytes()

    def resolve(self, name: str) -> str:
        return name.removeprefix("./")


def _ingest(store: ContentStore, source: IO[bytes]) -> _Entries:
    entries = _Entries()
    links: dict[str, str] = {}
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.issym() or member.islnk():  # docker save once wrote equal layers as links
                base = name.rpartition("/")[0] if member.issym() else ""
                links[name] = _join(base, member.linkname)
                continue
            if not member.isreg():
                continue
            stream = archive.extractfile(member)
            if stream is None:
                continue
            if name.endswith(".json") and member.size <= _METADATA_LIMIT and "/" not in name:
                entries.documents[name] = stream.read()
                continue
            entries.digests[name] = store.put_blob(stream)  # type: ignore[arg-type]
    for name, target in links.items():
        if target in entries.digests:
            entries.digests[name] = entries.digests[target]
    return entries


def _join(base: str, target: str) -> str:
    parts = base.split("/") if base else []
    for part in target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _decode(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise BadConfig(f"image archive holds broken JSON: {error}") from error


def _guard(found: Callable[[], list[LoadedImage]]) -> list[LoadedImage]:
    try:
        return found()
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadConfig(f"image archive is incomplete: {error!r}") from error


def _docker(store: ContentStore, entries: _Entries) -> list[LoadedImage]:
    def body() -> list[LoadedImage]:
        found = []
        for entry in _decode(entries.documents["manifest.json"]):
            config = entries.read(entry["Config"], store)
            layers = [entries.digests[entries.resolve(layer)] for layer in entry["Layers"]]
            names = [str(normalize(tag)) for tag in entry.get("RepoTags") or []]
            found.append(LoadedImage(_record(store, config, layers), names))
        return found

    return _guard(body)


def _oci(store: ContentStore, entries: _Entries) -> list[LoadedImage]:
    def body() -> list[LoadedImage]:
        found: list[LoadedImage] = []
        for entry in _decode(entries.documents["index.json"])["manifests"]:
            annotations = entry.get("annotations") or {}
            name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name")
            manifest = _decode(store.blob(entry["digest"]).read_bytes())
            while "manifests" in manifest:
                manifest = _decode(store.blob(pick_platform(manifest["manifests"])["digest"]).read_bytes())
            config = store.blob(manifest["config"]["digest"]).read_bytes()
            image = _record(store, config, [layer["digest"] for layer in manifest["layers"]])
            # A bare tag as ref.name (the OCI recommendation) names no repository: not a usable name by itself.
            usable = isinstance(name, str) and ("/" in name or ":" in name)
            found.append(LoadedImage(image, [str(normalize(str(name)))] if usable else []))
        return found

    try:
        return _guard(body)
    except FileNotFoundError as error:
        raise BadConfig(f"image archive lacks a blob: {error.filename}") from error


def _record(store: ContentStore, config: bytes, layers: list[str]) -> ImageRecord:
    import io

    store.put_blob(io.BytesIO(config))
    return store.add_image(config, layers)
