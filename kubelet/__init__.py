"""The kubelet: makes the pods that the API server bound to this node run, and tells the truth about them.

Owns: the Node object and its Lease, the status of this node's pods, pod volumes under its root folder.
Never: talks to a container or an OCI runtime directly (only CRI v1), nor to etcd, nor decides where pods go.
Talks to: the API server (through `client`), the runtime's CRI socket; serves KubeletService to the API server.
"""
