"""Admission: what is decided about a write by looking at other objects.

Owns one module per plugin, in upstream's names and words, and the chain they form. Never looks at who asks for what
right (that is authorization) nor at an object alone (that is its strategy). Called by the registry after defaulting.
"""
