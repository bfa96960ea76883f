"""Which images a node has: names pulled by it, names loaded on this machine for all nodes, and notes about pulls.

Owns `images.json` in the node's root; content is the shared store's. Small local reads and writes. Called by the image
service and by container creation.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from runtime.faults import BadConfig, UnknownId
from runtime.images.reference import is_digest, normalize
from runtime.images.store import ContentStore, ImageRecord, Loaded
from runtime.records import write_atomically


class TableState(msgspec.Struct, omit_defaults=True):
    """What is remembered over restarts."""

    names: dict[str, str] = {}  # repository:tag → image id
    digests: dict[str, str] = {}  # repository@digest → image id
    notes: dict[str, str] = {}  # image id → how the last pull of it went, when that is worth telling
    hidden: list[str] = []  # loaded images that were removed on this node


@dataclass
class NodeImage:
    """An image as this node knows it."""

    record: ImageRecord
    tags: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    loaded: bool = False
    note: str = ""


class ImageTable:
    """The images of one node. Its methods may be called from several threads."""

    def __init__(self, store: ContentStore, file: Path, node: str) -> None:
        self.store = store
        self._file = file
        self._node = node
        self._loaded: tuple[int, Loaded] = (-1, Loaded())
        self._records: dict[str, ImageRecord] = {}
        self._lock = threading.RLock()
        try:
            self._state = msgspec.json.decode(file.read_bytes(), type=TableState)
        except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
            self._state = TableState()

    def _save(self) -> None:
        write_atomically(self._file, msgspec.json.encode(self._state))

    def _shared(self) -> Loaded:
        """Loaded names, read again only when the file changed."""
        try:
            stamp = (self.store.root / "loaded.json").stat().st_mtime_ns
        except FileNotFoundError:
            return Loaded()
        if stamp != self._loaded[0]:
            self._loaded = (stamp, self.store.loaded())
        return self._loaded[1]

    def _record(self, identity: str) -> ImageRecord | None:
        record = self._records.get(identity)
        if record is None:
            try:
                record = self._records[identity] = self.store.image(identity)
            except UnknownId:
                return None
        return record

    def _visible_loaded(self) -> dict[str, str]:
        hidden = set(self._state.hidden)
        return {name: identity for name, identity in self._shared().names.items() if identity not in hidden}

    def images(self) -> list[NodeImage]:
        """All images of this node."""
        with self._lock:
            return self._images()

    def _images(self) -> list[NodeImage]:
        found: dict[str, NodeImage] = {}

        def entry(identity: str) -> NodeImage | None:
            if identity not in found:
                record = self._record(identity)
                if record is None:
                    return None
                found[identity] = NodeImage(record, note=self._state.notes.get(identity, ""))
            return found[identity]

        for name, identity in self._visible_loaded().items():
            image = entry(identity)
            # A name that this node has pulled since then is no longer the loaded image's here.
            if image is not None and self._state.names.get(name, identity) == identity:
                image.tags.append(name)
                image.loaded = True
        for name, identity in self._state.names.items():
            image = entry(identity)
            if image is not None and name not in image.tags:
                image.tags.append(name)
        for name, identity in self._state.digests.items():
            image = entry(identity)
            if image is not None:
                image.digests.append(name)
        for image in found.values():
            if not image.digests:  # loaded images have none from a registry; the id is the best unambiguous name
                image.digests = sorted({f"{tag.rpartition(':')[0]}@{image.record.id}" for tag in image.tags})
        return [found[identity] for identity in sorted(found)]

    def find(self, name: str) -> NodeImage | None:
        """The image that a name, digest reference or id means here. Bad names raise BadConfig."""
        with self._lock:
            identity = self._identify(name)
            if identity is None:
                return None
            return next((image for image in self._images() if image.record.id == identity), None)

    def _identify(self, name: str) -> str | None:
        bare = name if name.startswith("sha256:") else f"sha256:{name}"
        if is_digest(bare):
            return bare
        reference = normalize(name)
        if reference.digest:
            known = self._state.digests.get(f"{reference.name}@{reference.digest}")
            if known is not None:
                return known
            loaded = {
                f"{tag.rpartition(':')[0]}@{identity}": identity for tag, identity in self._visible_loaded().items()
            }
            return loaded.get(f"{reference.name}@{reference.digest}")
        return self._state.names.get(reference.tagged) or self._visible_loaded().get(reference.tagged)

    def find_loaded(self, name: str) -> ImageRecord | None:
        """The image of that name which was built in or loaded, even if this node has removed it since."""
        try:
            reference = normalize(name)
        except BadConfig:
            return None
        identity = self._shared().names.get(reference.tagged)
        return None if identity is None or reference.digest else self._record(identity)

    def pulled(self, name: str, manifest_digest: str, image: ImageRecord) -> None:
        """Note a successful pull."""
        reference = normalize(name)
        self.store.hold(image.id, self._node)
        with self._lock:
            self._records[image.id] = image
            if reference.tag and not reference.digest:
                self._state.names[reference.tagged] = image.id
            self._state.digests[f"{reference.name}@{manifest_digest}"] = image.id
            self._state.notes.pop(image.id, None)
            self._unhide(image.id)
            self._save()

    def satisfied(self, image: ImageRecord, note: str) -> None:
        """Note a pull that was satisfied without the registry, and why."""
        with self._lock:
            self._state.notes[image.id] = note
            self._unhide(image.id)
            self._save()

    def _unhide(self, identity: str) -> None:
        self._state.hidden = [each for each in self._state.hidden if each != identity]

    def remove(self, name: str) -> None:
        """Forget an image and all its names on this node; content nobody needs is deleted. Blocking."""
        with self._lock:
            image = self.find(name)
            if image is None:
                return
            identity = image.record.id
            for table in (self._state.names, self._state.digests):
                for key in [key for key, value in table.items() if value == identity]:
                    del table[key]
            self._state.notes.pop(identity, None)
            if identity in self._shared().names.values():
                self._state.hidden.append(identity)
            self._save()
            self._records.pop(identity, None)
        self.store.release(identity, self._node)
