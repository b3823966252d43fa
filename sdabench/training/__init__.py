"""Training and evaluation: the loop, the trainer, checkpoints, distribution, and what each task adds."""
