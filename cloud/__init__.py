"""The emulated cloud: machines, the network between them, node groups, load balancers, and what it all costs.

Two halves. `machine` and `network` own network namespaces, links, addresses and cgroups, and are used by the supervisor
that builds machines; they talk to nobody. The rest is the `cloud` process: it owns what node groups want and have (a
JSON file), asks the supervisor for machines, serves cluster-autoscaler's externalgrpc contract and a service of its
own, looks after the Nodes of its machines and gives Services of type LoadBalancer their addresses.
"""
