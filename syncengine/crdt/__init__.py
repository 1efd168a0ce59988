"""Documents as conflict-free replicated data: pure, no I/O, no clock, no randomness."""
