"""Validation of API objects as plain dicts, one module per API group.

Owns upstream's rules: field paths, reasons and message texts. Never mutates an object, never does I/O and never raises
for bad input: every function returns a list of `FieldError`. Called by the strategies.
"""
