"""The synchronous drivers; the package itself exports their public names."""
