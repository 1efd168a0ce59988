"""`python -m syncengine.testing --seeds 1000`: run the standard story."""

import sys

from syncengine.testing.campaign import main

if __name__ == "__main__":
    sys.exit(main())
