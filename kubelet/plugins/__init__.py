"""Plugins of this node: sockets that register themselves, and what becomes of volume drivers among them.

Owns the registry folder, the table of registered CSI drivers and the CSINode object. Never mounts anything.
"""
