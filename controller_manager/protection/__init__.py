"""Protection of storage objects in use: volumes, claims and volume attributes classes go when nothing needs them.

Owns the three protection finalizers (the API server's admission adds them to new objects). Never binds, provisions or
deletes anything.
"""
