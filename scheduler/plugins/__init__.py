"""The plugins, one file each; `registry.py` is the table of the default profile.

A new plugin is a file here and a line there. Plugins never import one another and do no I/O (DefaultBinder excepted).
"""
