"""Claims: what the paper prints or implies, compared with what was measured."""
