"""The gRPC door: ResourceService over the same registry, for the cluster's own components."""
