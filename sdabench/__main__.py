"""``python -m sdabench`` is ``sdabench``."""

from typing import NoReturn

from sdabench.training.signals import handle_signals


def main() -> NoReturn:
    """Run the command line; see :func:`sdabench.cli.main`."""
    handle_signals()  # before more is imported
    from sdabench.cli import main

    main()


if __name__ == "__main__":
    main()
