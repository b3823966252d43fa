"""``python -m sdabench`` is ``sdabench``."""

from sdabench.cli import main

if __name__ == "__main__":
    main()
