"""Running networks: training, evaluation, and suites of both."""
