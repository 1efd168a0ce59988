"""The core that Text and List share: eg-walker.

After Gentle and Kleppmann, "Collaborative Text Editing with Eg-walker: Better,
Faster, Smaller" (EuroSys 2025). The run-length log of edits is the truth; sequential
edits never build CRDT structures; only concurrent regions are replayed through a
temporary one (`walker.py`). Ordering is Fugue's rule, ties broken by (actor, seq).

Left out: the greedy order of branches, which changes speed only, not what anything
converges to. `oplog` and `walker` can be compiled (`setup.py`), from the same source.
"""
