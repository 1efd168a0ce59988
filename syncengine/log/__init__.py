"""The log: changes, the signed batches that carry them, and when they take effect."""
