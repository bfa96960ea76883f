"""The emulated cloud: machines and the network between them.

Owns network namespaces, links, addresses and cgroups of machines, and the switch that joins them. Never talks to the
API server: what runs inside a machine is started by whoever built it (the CLI's supervisor today, node groups later).
"""
