"""Strategic merge patch: lists of objects merge by key, and directives inside the patch say more than JSON can.

Directives: `$patch` (replace, delete) in objects and list elements, `$setElementOrder/<list>`, `$retainKeys` and
`$deleteFromPrimitiveList/<list>`. Merge keys and strategies come from a `MergeSchema`. New elements stand before the
server's own ones unless an element order says otherwise: that is upstream's rule. Errors carry upstream's texts; most
are 500 without a reason there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from machinery.errors import BadRequest, StatusError
from machinery.golang import printed

PATCH = "$patch"
RETAIN_KEYS = "$retainKeys"
SET_ELEMENT_ORDER = "$setElementOrder/"
DELETE_FROM_PRIMITIVE_LIST = "$deleteFromPrimitiveList/"


class MergeSchema(Protocol):
    """What a merge asks of a schema; `api.schema.SchemaNode` is one."""

    @property
    def items(self) -> MergeSchema | None: ...
    @property
    def patch_strategy(self) -> tuple[str, ...]: ...
    @property
    def patch_merge_key(self) -> str: ...
    def child(self, key: str, /) -> MergeSchema | None: ...


def apply_strategic_merge(doc: dict[str, Any], patch: dict[str, Any], schema: MergeSchema | None) -> dict[str, Any]:
    """The patched document; neither argument is modified, untouched parts are shared. StatusError on a bad patch."""
    return _merge_object(doc, patch, schema)


def _merge_object(original: dict[str, Any], patch: dict[str, Any], schema: MergeSchema | None) -> dict[str, Any]:
    special = False
    for key in patch:
        if key[:1] == "$":
            special = True
            break
    if special and PATCH in patch:
        return _object_directive(patch)
    result = dict(original)
    if special:
        patch = dict(patch)
        _retain_keys(result, patch)
        _set_element_orders(result, patch, schema)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
            continue
        if special and key.startswith(DELETE_FROM_PRIMITIVE_LIST):
            _delete_primitives(result, key[len(DELETE_FROM_PRIMITIVE_LIST) :], value)
            continue
        current = result.get(key)
        if isinstance(value, dict):
            if isinstance(current, dict):
                node = schema.child(key) if schema is not None else None
                if node is not None and "replace" in node.patch_strategy:
                    result[key] = value
                else:
                    result[key] = _merge_object(current, value, node)
                continue
        elif isinstance(value, list):
            if isinstance(current, list):
                result[key] = _merge_field_list(current, value, schema.child(key) if schema is not None else None)
                continue
        else:
            result[key] = value
            continue
        cleaned = _without_directives(value)
        if cleaned is not _DROPPED:
            result[key] = cleaned
    return result


def _object_directive(patch: dict[str, Any]) -> dict[str, Any]:
    directive = patch[PATCH]
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != PATCH}
    if directive == "delete":
        return {}
    raise _unknown_directive(directive, patch)


def _retain_keys(result: dict[str, Any], patch: dict[str, Any]) -> None:
    """Drop every field of the original that the directive does not list; both arguments are our own copies."""
    if RETAIN_KEYS not in patch:
        return
    keep = patch.pop(RETAIN_KEYS)
    if not isinstance(keep, list):
        raise BadRequest("invalid patch format of retainKeys")
    names = {name for name in keep if isinstance(name, str)}
    for key, value in patch.items():
        if value is None or key.startswith((SET_ELEMENT_ORDER, DELETE_FROM_PRIMITIVE_LIST)):
            continue
        if key not in names:
            raise BadRequest("invalid patch format of retainKeys")
    for key in [key for key in result if key not in names]:
        del result[key]


def _set_element_orders(result: dict[str, Any], patch: dict[str, Any], schema: MergeSchema | None) -> None:
    """Merge and order every list that has an order directive, and take both out of the patch."""
    for directive in [key for key in patch if key.startswith(SET_ELEMENT_ORDER)]:
        order = patch.pop(directive)
        key = directive[len(SET_ELEMENT_ORDER) :]
        if not isinstance(order, list):
            raise BadRequest("invalid patch format of setElementOrder list")
        node = schema.child(key) if schema is not None else None
        merge_key = node.patch_merge_key if node is not None else ""
        has_original, has_patch = key in result, key in patch
        original, given = result.get(key), patch.get(key)
        if (has_original and not isinstance(original, list)) or (has_patch and not isinstance(given, list)):
            raise BadRequest("invalid patch format of setElementOrder list")
        if given:
            _check_order(given, order, merge_key)
        if has_original and has_patch:
            merged = _merge_field_list(original or [], given or [], node)
        elif has_original:
            merged = original or []
        elif has_patch:
            merged = [item for item in map(_without_directives, given or []) if item is not _DROPPED]
        else:
            continue
        result[key] = _ordered(merged, order, original or [], merge_key)
        patch.pop(key, None)


def _check_order(given: list[Any], order: list[Any], merge_key: str) -> None:
    """The patch's elements must occur in the directive, in its order."""
    identity = _identity(merge_key)
    kept = [item for item in given if not (isinstance(item, dict) and PATCH in item)]
    position = 0
    for wanted in order:
        if position < len(kept) and identity(kept[position]) == identity(wanted):
            position += 1
    if order and position < len(kept):
        raise _server_error(
            f"The order in patch list:\n{printed(given)}\n doesn't match "
            f"{SET_ELEMENT_ORDER[:-1]} list:\n{printed(order)}\n"
        )


def _delete_primitives(result: dict[str, Any], key: str, values: Any) -> None:
    if not isinstance(values, list):
        raise BadRequest("invalid patch format of primitive list")
    current = result.get(key)
    if isinstance(current, list):
        result[key] = [item for item in current if item not in values]


def _merge_field_list(original: list[Any], patch: list[Any], node: MergeSchema | None) -> list[Any]:
    if node is None or "merge" not in node.patch_strategy:
        return patch
    if not original and not patch:
        return original
    if not isinstance((original or patch)[0], dict):
        merged = list(dict.fromkeys(_scalars(original) + _scalars(patch)))
        return _ordered(merged, patch, original, "")
    merge_key = node.patch_merge_key
    if not merge_key:
        raise _server_error("cannot merge lists without merge key")
    original, patch = _list_directives(original, patch, merge_key)
    return _ordered(_merge_keyed(original, patch, merge_key, node.items), patch, original, merge_key)


def _list_directives(original: list[Any], patch: list[Any], merge_key: str) -> tuple[list[Any], list[Any]]:
    """Carry out the `$patch` elements; what remains is merged element by element."""
    plain = []
    replace = False
    for item in patch:
        if not isinstance(item, dict):
            raise _server_error(f"expected a map in a list of maps, but received {printed(item)}")
        directive = item.get(PATCH)
        if directive is None:
            plain.append(item)
        elif directive == "delete":
            key = _key_of(item, merge_key)
            original = [o for o in original if not (isinstance(o, dict) and merge_key in o and o[merge_key] == key)]
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise _server_error("merging lists cannot yet be specified in the patch")
        else:
            raise _unknown_directive(directive, item)
    return (plain, []) if replace else (original, plain)


def _merge_keyed(original: list[Any], patch: list[Any], merge_key: str, item: MergeSchema | None) -> list[Any]:
    merged = list(original)
    positions: dict[Any, int] = {}
    for index, element in enumerate(merged):
        if isinstance(element, dict) and merge_key in element:
            positions.setdefault(_hashable(element[merge_key]), index)
    for element in patch:
        key = _hashable(_key_of(element, merge_key))
        position = positions.get(key)
        if position is not None:
            merged[position] = _merge_object(merged[position], element, item)
        else:
            cleaned = _without_directives(element)
            if cleaned is not _DROPPED:
                positions[key] = len(merged)
                merged.append(cleaned)
    return merged


def _ordered(merged: list[Any], patch_order: Sequence[Any], server_order: Sequence[Any], merge_key: str) -> list[Any]:
    """Elements the patch names in its order, the server's own in theirs, interleaved where the server's order tells."""
    identity = _identity(merge_key)
    patch_rank = _ranks(patch_order, identity)
    server_rank = _ranks(server_order, identity)
    keyed = [(identity(item), item) for item in merged]
    from_patch = sorted((pair for pair in keyed if pair[0] in patch_rank), key=lambda pair: patch_rank[pair[0]])
    servers = [pair for pair in keyed if pair[0] not in patch_rank]
    servers.sort(key=lambda pair: server_rank.get(pair[0], len(server_rank)))
    result: list[Any] = []
    left = 0
    for key, item in from_patch:
        rank = server_rank.get(key, -1)
        while left < len(servers) and 0 <= server_rank.get(servers[left][0], -1) < rank:
            result.append(servers[left][1])
            left += 1
        result.append(item)
    result.extend(pair[1] for pair in servers[left:])
    return result


def _ranks(order: Sequence[Any], identity: Callable[[Any], Any]) -> dict[Any, int]:
    ranks: dict[Any, int] = {}
    for index, item in enumerate(order):
        ranks.setdefault(identity(item), index)
    return ranks


def _identity(merge_key: str) -> Callable[[Any], Any]:
    if not merge_key:
        return _hashable
    return lambda item: _hashable(_key_of(item, merge_key))


def _key_of(item: Any, merge_key: str) -> Any:
    if not isinstance(item, dict) or merge_key not in item:
        raise _server_error(f"map: {printed(item)} does not contain declared merge key: {merge_key}")
    return item[merge_key]


def _hashable(value: Any) -> Any:
    return printed(value) if isinstance(value, (dict, list)) else value


def _scalars(items: list[Any]) -> list[Any]:
    if any(isinstance(item, (dict, list)) for item in items):
        raise BadRequest("invalid patch format of primitive list")
    return items


_DROPPED: Any = object()


def _without_directives(value: Any) -> Any:
    """A part of the patch that has no counterpart: as JSON, without directives and nulls; `_DROPPED` if it deletes."""
    if isinstance(value, dict):
        directive = value.get(PATCH)
        if directive == "delete":
            return _DROPPED
        result = {}
        for key, item in value.items():
            if item is None or key in (PATCH, RETAIN_KEYS):
                continue
            if key.startswith((SET_ELEMENT_ORDER, DELETE_FROM_PRIMITIVE_LIST)):
                continue
            cleaned = _without_directives(item)
            if cleaned is not _DROPPED:
                result[key] = cleaned
        # The element that only says "replace the list" is no element.
        return _DROPPED if directive is not None and not result else result
    if isinstance(value, list):
        return [item for item in map(_without_directives, value) if item is not _DROPPED]
    return value


def _unknown_directive(directive: Any, patch: dict[str, Any]) -> StatusError:
    return _server_error(f"unknown patch type: {printed(directive)} in map: {printed(patch)}")


def _server_error(message: str) -> StatusError:
    return StatusError(message, code=500, reason="")
