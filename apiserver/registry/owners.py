"""Owner references that a client sent twice: only the first stays, and the client is told.

Upstream tells with other words what mutating admission has doubled; of a PATCH it looks at the outcome only. Called by
the registry's writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from apiserver.registry.context import RequestContext

Obj = dict[str, Any]

_TWINS: Final = ".metadata.ownerReferences contains duplicate entries"
_ADVICE: Final = (
    "API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your "
    "requests; duplicate UID(s) observed: "
)


def drop_twins(ctx: RequestContext, meta: Obj, *, admitted: bool) -> None:
    """Take away references that are equal in every field to an earlier one; those with the same uid alone stay.

    `admitted`: mutating admission is over. What is no list of objects is left to validation.
    """
    references = meta.get("ownerReferences")
    if not isinstance(references, list) or len(references) < 2:
        return
    kept: list[Any] = []
    twins: list[str] = []
    for reference in references:
        if reference not in kept:
            kept.append(reference)
        elif isinstance(reference, dict):
            twins.append(str(reference.get("uid") or ""))
    if not twins:
        return
    meta["ownerReferences"] = kept
    when = " after mutating admission happens" if admitted else ""
    text = f"{_TWINS}{when}; {_ADVICE}{', '.join(twins)}"
    if text not in ctx.warnings:  # a write may be tried again
        ctx.warnings.append(text)
