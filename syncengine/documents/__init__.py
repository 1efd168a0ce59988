"""What applications hold: typed and untyped documents, as drafts and snapshots."""
