"""Tools: one folder for each command with a logic and a view of its own."""
