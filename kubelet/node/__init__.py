"""The Node object: registration, status, Lease."""
