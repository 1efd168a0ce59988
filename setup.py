"""The one thing pyproject.toml cannot say: merging can be compiled.

`SYNCENGINE_ACCELERATE=1 pip install .` makes machine code of the modules below, from
the same source, by mypyc; it takes a C compiler. Without it everything is pure Python.
"""

import os
from typing import Any

from setuptools import setup

MODULES = [
    "syncengine/crdt/sequence/oplog.py",
    "syncengine/crdt/sequence/walker.py",
]
COMPILER = "mypy[mypyc]==2.4.1"  # the one the figures and tests are of


def extensions() -> list[Any]:
    try:
        from mypyc.build import mypycify
    except ImportError:
        return []  # asked what the build requires; the compiler is there next time
    # Types are checked with all that is imported by `make check`; here that is missing.
    options = ["--config-file=", "--follow-imports=silent", "--ignore-missing-imports"]
    return list(mypycify([*options, *MODULES]))


if os.environ.get("SYNCENGINE_ACCELERATE") == "1":
    setup(setup_requires=[COMPILER], ext_modules=extensions())
else:
    setup()
