"""The core that Text and List share: eg-walker.

After Gentle and Kleppmann, "Collaborative Text Editing with Eg-walker: Better,
Faster, Smaller" (EuroSys 2025). The run-length log of edits is the truth; sequential
edits never build CRDT structures; only concurrent regions are replayed through a
temporary one (`walker.py`). Ordering is Fugue's rule, ties broken by (actor, seq).

Left out for now: the retained tracker for live sessions and the greedy branch order;
both change speed only, not what anything converges to.
"""
