"""Figures, measured against peers or limits in the same run: `python -m benchmarks`."""
