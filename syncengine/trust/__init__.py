"""Who may do what, and how a peer can tell: keys, sealing, the membership log."""
