"""Volumes of CSI drivers: waited for, staged, published, expanded, and given back.

Owns `<root>/plugins/kubernetes.io/csi` and what lies below `kubernetes.io~csi` of the pods' folders. Never attaches.
"""
