"""ImageLocality: prefer nodes that have the pod's images, the more so the larger and the more widely spread they are.

Scaling by spread keeps all pods of an image from heating up the one node that pulled it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scheduler.framework.columns import FloatArray
from scheduler.framework.events import Registration
from scheduler.framework.interface import MAX_SCORE, Normalization, Reads
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot

_MIB = 1024 * 1024
LEAST = 23 * _MIB  # below this a pull is too cheap to matter
MOST_PER_CONTAINER = 1000 * _MIB


def normalized(image: str) -> str:
    """The name with its tag, as nodes report it."""
    return image if image.rfind(":") > image.rfind("/") else f"{image}:latest"


def _images(pod: PodInfo) -> list[str]:
    containers = [*(pod.spec.initContainers or ()), *pod.spec.containers]
    return [normalized(container.image or "") for container in containers]


class ImageLocality:
    """Score."""

    name = "ImageLocality"
    reads = Reads.NODE
    normalization = Normalization.NONE

    def registrations(self) -> Sequence[Registration]:
        return ()

    def sign(self, pod: PodInfo) -> Any:
        return _images(pod)

    def pre_score(self, pod: PodInfo, snapshot: ClusterSnapshot) -> list[str] | None:
        images = _images(pod)
        return images if any(image in snapshot.images for image in images) else None

    def score(self, state: list[str], snapshot: ClusterSnapshot) -> FloatArray:
        sizes: FloatArray = np.zeros(snapshot.width)
        for image in state:
            known = snapshot.images.get(image)
            if known is not None:
                spread = len(known.columns) / snapshot.node_count
                sizes[list(known.columns)] += float(int(known.size * spread))
        most = MOST_PER_CONTAINER * len(state)
        np.clip(sizes, LEAST, most, out=sizes)
        sizes -= LEAST
        sizes *= MAX_SCORE
        sizes /= most - LEAST
        return np.floor(sizes, out=sizes)

    def score_at(self, state: list[str], snapshot: ClusterSnapshot, column: int) -> float:
        return float(self.score(state, snapshot)[column])
