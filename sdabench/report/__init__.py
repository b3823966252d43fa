"""One model of a table, and its renderings."""
