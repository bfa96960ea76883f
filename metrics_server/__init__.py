"""metrics-server: what nodes and pods use, as metrics.k8s.io/v1beta1 behind the API server's aggregation.

Owns: scraping every kubelet each 15 s, the last two points of every container, and the HTTPS door that tells the usage
between them. Never stores anything, decides nothing. Talks to kubelets (gRPC) and to the API server (which nodes and
pods there are, who may ask); asked by the API server on behalf of users.
"""
