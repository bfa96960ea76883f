"""Claims, volumes and classes as decisions see them: what the API server says, and what was assumed since.

Owns the account of storage objects; never does I/O, never decides. What a decision promises (a volume to a claim, a
node to a claim that is to be provisioned) is assumed here at once, so that the next decision does not give it away
again; a newer object from the API server ends the assumption. Written by event handlers and by VolumeBinding.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from api import volumes as rules
from api.models import storage_v1
from api.volumes import Claim, StorageClass, Volume

Key = tuple[str, str]  # (namespace, name)


class VolumeCatalog:
    """`version` moves with every change; `listeners` are called at every change that came from the API server."""

    def __init__(self) -> None:
        self.version = 0
        self.listeners: set[Callable[[], None]] = set()
        self.classes: dict[str, StorageClass] = {}
        self.csi_nodes: dict[str, storage_v1.CSINode] = {}
        self.csi_drivers: dict[str, storage_v1.CSIDriver] = {}
        self.capacities: dict[Key, storage_v1.CSIStorageCapacity] = {}
        self.attachments: dict[str, storage_v1.VolumeAttachment] = {}
        self._claims: dict[Key, Claim] = {}
        self._volumes: dict[str, Volume] = {}
        self._assumed_claims: dict[Key, Claim] = {}
        self._assumed_volumes: dict[str, Volume] = {}
        self._by_class: dict[str, dict[str, None]] = {}

    # --- reading -------------------------------------------------------------------------------------------------

    def claim(self, key: Key) -> Claim | None:
        """With what was assumed about it."""
        return self._assumed_claims.get(key) or self._claims.get(key)

    def volume(self, name: str) -> Volume | None:
        """With what was assumed about it."""
        return self._assumed_volumes.get(name) or self._volumes.get(name)

    def real_claim(self, key: Key) -> Claim | None:
        """As the API server has it."""
        return self._claims.get(key)

    def real_volume(self, name: str) -> Volume | None:
        """As the API server has it."""
        return self._volumes.get(name)

    def volumes_of_class(self, name: str) -> Iterable[Volume]:
        """With what was assumed about them."""
        return [self._assumed_volumes.get(each) or self._volumes[each] for each in self._by_class.get(name, ())]

    # --- from the API server -------------------------------------------------------------------------------------

    def set_claim(self, key: Key, claim: Claim | None) -> None:
        """Take over a claim; None when it is gone."""
        self._forget_older(self._assumed_claims, key, claim)
        if claim is None:
            self._claims.pop(key, None)
        else:
            self._claims[key] = claim
        self._changed()

    def set_volume(self, name: str, volume: Volume | None) -> None:
        """Take over a volume; None when it is gone."""
        self._forget_older(self._assumed_volumes, name, volume)
        known = self._volumes.pop(name, None)
        if known is not None:
            here = self._by_class[rules.class_of(known)]
            del here[name]
            if not here:
                del self._by_class[rules.class_of(known)]
        if volume is not None:
            self._volumes[name] = volume
            self._by_class.setdefault(rules.class_of(volume), {})[name] = None
        self._changed()

    @staticmethod
    def _forget_older(
        assumed: dict[Key, Claim] | dict[str, Volume], key: Key | str, new: Claim | Volume | None
    ) -> None:
        known = assumed.get(key)  # type: ignore[arg-type]  # the keys go with the values
        if known is None:
            return
        if new is None or new.metadata.resourceVersion != known.metadata.resourceVersion:
            del assumed[key]  # type: ignore[arg-type]

    def changed(self) -> None:
        """One of the public dictionaries was written."""
        self._changed()

    def _changed(self) -> None:
        self.version += 1
        for listener in tuple(self.listeners):
            listener()

    # --- assumptions ---------------------------------------------------------------------------------------------

    def assume_claim(self, key: Key, claim: Claim) -> None:
        self._assumed_claims[key] = claim
        self.version += 1

    def assume_volume(self, volume: Volume) -> None:
        self._assumed_volumes[volume.metadata.name or ""] = volume
        self.version += 1

    def restore_claim(self, key: Key) -> None:
        """Go back to what the API server says."""
        if self._assumed_claims.pop(key, None) is not None:
            self.version += 1

    def restore_volume(self, name: str) -> None:
        """Go back to what the API server says."""
        if self._assumed_volumes.pop(name, None) is not None:
            self.version += 1

    def csi_limits(self, node: str) -> Mapping[str, int]:
        """How many volumes of each driver the node takes, for drivers that say so."""
        found = self.csi_nodes.get(node)
        return {
            driver.name: driver.allocatable.count
            for driver in (found.spec.drivers if found is not None else ())
            if driver.allocatable is not None and driver.allocatable.count is not None
        }
