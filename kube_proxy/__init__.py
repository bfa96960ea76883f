"""Service dataplane and pod routes of one machine (or of the host, in a table of its own).

Owns one nftables table and the routes to other machines' pod networks. Never proxies in user space, never touches
another table. Reads Services, EndpointSlices and Nodes through the client.

    rules.py      pure: service ports and their endpoints → nftables text
    dataplane.py  applies text by `nft -f`, one transaction per change; the fake records it
    services.py   caches → service ports; the reconciler
    routes.py     Nodes → routes
"""
