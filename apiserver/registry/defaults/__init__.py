"""Default values of API objects as plain dicts, one module per API group.

Owns what upstream fills in when a field is absent. Functions change the object in place, do no I/O and accept any
decoded JSON of the right shape (the schema check ran before). Called by the strategies.
"""
