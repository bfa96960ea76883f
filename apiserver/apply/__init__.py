"""Server-side apply and field ownership: who set which field of an object.

Owns: field sets (FieldsV1 documents), the fields of an object after its schema, the difference of two objects, the
merge of an applied configuration, and the bookkeeping of `metadata.managedFields`. Pure: plain dicts in, plain dicts
out; nothing is modified in place and untouched parts are shared. Never: does I/O, knows clocks or requests. Called by
the registry on every write (`ownership`) and for every apply (`server_side`).
"""
