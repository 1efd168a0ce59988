"""Values that merge, and what decides between versions of a value: no log, no link.

For applications that keep versions of their own, and for what a namespace does where
several masters write. Everything here is a value or a pure function of its arguments.
"""
