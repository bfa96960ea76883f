"""The parts a table is made of: columns, and the pairing of columns with a cell function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

Object = Mapping[str, Any]
Cells = Callable[[Object, datetime], list[Any]]
Conditions = Callable[[Object], list[dict[str, str]]]


class Column(NamedTuple):
    """metav1.TableColumnDefinition; priority 1 is shown by ``-o wide`` only."""

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description or _STANDARD.get(self.name, ""),
            "priority": self.priority,
        }


_STANDARD = {
    "Name": "Name must be unique within a namespace; it is how the object is addressed.",
    "Age": "Time since the object was created.",
    "Created At": "The moment at which the object was created.",
    "Containers": "Names of each container in the template.",
    "Images": "Images referenced by each container in the template.",
    "Selector": "Label selector that chooses the objects this one looks after.",
    "Ready": "How many of the wanted parts are ready.",
    "Status": "The state of the object in one word.",
    "Restarts": "How often the containers of this pod were restarted, and when last.",
}


@dataclass(frozen=True)
class Printer:
    """How one kind is printed."""

    columns: tuple[Column, ...]
    cells: Cells
    conditions: Conditions | None = None


def printer(columns: str, cells: Cells, conditions: Conditions | None = None) -> Printer:
    """`columns` lists those after Name: ``Ready, Desired:integer, Images+`` where ``+`` marks wide ones."""
    return Printer((Column("Name", format="name"), *columns_of(columns)), cells, conditions)


def columns_of(text: str) -> tuple[Column, ...]:
    """Columns from a list such as ``Ready, Desired:integer, Attacher:string:name, Images+``."""
    found = []
    for item in text.split(", ") if text else ():
        priority = 1 if item.endswith("+") else 0
        name, _, kind = item.rstrip("+").partition(":")
        type_, _, format_ = kind.partition(":")
        found.append(Column(name, type_ or "string", format_, priority))
    return tuple(found)
