"""Records: one result each, stored with its environment and its predictions."""
