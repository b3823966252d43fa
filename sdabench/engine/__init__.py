"""Running networks: evaluation of one, and of a suite, each in a process of its own."""
