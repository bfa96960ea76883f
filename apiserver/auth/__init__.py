"""Who is asking (authentication) and whether they may (authorization). Called by the REST and the gRPC door."""
