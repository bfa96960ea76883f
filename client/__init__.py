"""Everything a component needs to work against the API server.

Owns: the typed client over the gRPC door, informers and listers, the work queue, the controller runner, leader
election and the event recorder. Never: knows a controller, a kind's rules, or etcd. Talks to: the API server's
ResourceService only.

    client.py      one request at a time, typed or as plain dicts
    informer.py    list + watch cache of one kind, as an explicit state machine; listers.py its read side
    workqueue.py   deduplicated keys with delays and back-off
    controller.py  the one loop all reconcilers run in
    leases.py      leader election;  events.py  core/v1 Events
"""
