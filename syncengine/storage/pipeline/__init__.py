"""Pipelines: ordered, durable entries of namespaces, which nodes publish and follow."""
