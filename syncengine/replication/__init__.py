"""Joins sessions to a store: who keeps what, who gets what, and when."""
