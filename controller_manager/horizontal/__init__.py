"""The horizontal pod autoscaler: metrics to replica counts, stabilized and limited, written through `scale`."""
