"""The patches of the Kubernetes API: JSON patch, JSON merge patch, strategic merge patch.

Owns: decoding a patch's body and applying it to a decoded document. Every function is pure and copies only the path
it changes: the input is never modified, the result shares all untouched parts with it. Never: knows kinds, storage or
HTTP; a strategic merge reads its merge keys from any object that is a `MergeSchema`. Called by the API server's
registry (PATCH) and by clients that compute patches.
"""

from machinery.patch.json_patch import apply_json_patch, decode_json_patch
from machinery.patch.merge_patch import apply_merge_patch, create_merge_patch, decode_merge_patch
from machinery.patch.strategic import MergeSchema, apply_strategic_merge

__all__ = [
    "MergeSchema",
    "apply_json_patch",
    "apply_merge_patch",
    "apply_strategic_merge",
    "create_merge_patch",
    "decode_json_patch",
    "decode_merge_patch",
]
