"""`python -m syncengine`: the one place that reaches up to `clients.cli`."""

import sys
from pathlib import Path


def main() -> None:
    """Run the command line, after a check that its packages are ours."""
    import clients
    import transport

    home = Path(__file__).parent.parent
    for module in (clients, transport):
        found = Path(module.__file__ or "").parent.parent
        if found != home:
            sys.exit(
                f"{module.__file__} shadows our package {module.__name__!r}; run from "
                "another folder, or rename it"
            )
    from clients.cli import main as run

    run()


if __name__ == "__main__":
    main()
