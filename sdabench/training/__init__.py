"""Train and evaluate networks: the loop, the trainer, checkpoints, distribution, and tasks."""
