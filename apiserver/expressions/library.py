"""All functions that expressions may call besides the standard ones, as the CEL library wants them declared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cel_expr_python import cel

from apiserver.expressions import addresses, containers, numbers, rights, texts
from apiserver.expressions.numbers import Row
from apiserver.expressions.opaque import KINDS, PACKAGE

FAMILIES: tuple[Iterable[Row], ...] = (numbers.ROWS, addresses.ROWS, containers.ROWS, texts.ROWS, rights.ROWS)


def functions() -> list[cel.FunctionDecl]:
    """One declaration per name, with an overload per row."""
    types = {
        "list": cel.Type.LIST,
        "map": cel.Type.MAP,
        "str": cel.Type.STRING,
        "int": cel.Type.INT,
        "bool": cel.Type.BOOL,
        "double": cel.Type.DOUBLE,
        "dyn": cel.Type.DYN,
        **{kind: cel.Type(f"{PACKAGE}.{kind}") for kind in KINDS},
    }
    overloads: dict[str, list[cel.Overload]] = {}
    for rows in _erased().values():
        for place, (name, member, takes, gives, _) in enumerate(rows):
            settings = {
                "id": f"k8s_{name.replace('.', '_')}_{'member_' if member else ''}{takes.replace(' ', '_')}",
                "return_type": types[gives],
                "parameters": [types[kind] for kind in takes.split()],
                "is_member": member,
            }
            # The library checks types, but runs all overloads of the same shape by one implementation.
            made = cel.Overload(**settings) if place else cel.Overload(**settings, impl=_chosen(rows))
            overloads.setdefault(name, []).append(made)
    return [cel.FunctionDecl(name, rows) for name, rows in overloads.items()]


def _erased() -> dict[tuple[str, bool, str], list[Row]]:
    """Rows by what the library tells apart when it runs: all our kinds are one to it."""
    found: dict[tuple[str, bool, str], list[Row]] = {}
    for row in (row for rows in FAMILIES for row in rows):
        shape = " ".join("opaque" if kind in KINDS else kind for kind in row[2].split())
        found.setdefault((row[0], row[1], shape), []).append(row)
    return found


def _chosen(rows: Sequence[Row]) -> Any:
    if len(rows) == 1:
        return rows[0][4]
    by_kinds = {tuple(row[2].split()): row[4] for row in rows}

    def call(*values: Any) -> Any:
        kinds = tuple(value.DESCRIPTOR.name if hasattr(value, "DESCRIPTOR") else None for value in values)
        for wanted, implementation in by_kinds.items():
            if all(kind is None or kind == name for kind, name in zip(kinds, wanted, strict=True)):
                return implementation(*values)
        raise ValueError("no such overload")

    return call
