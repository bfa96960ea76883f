"""One worker per pod: `machine` decides (events in, instructions out, no I/O), `worker` carries out."""
