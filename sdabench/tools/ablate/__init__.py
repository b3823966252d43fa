"""``sdabench ablate``: vary the depth attention of a network, one choice at a time."""
