"""The front door of a checkout: ``python cli.py …`` is ``sdabench …``."""

from sdabench.__main__ import main

if __name__ == "__main__":
    main()
