"""The drivers of the synchronous names; the package itself is their door."""
