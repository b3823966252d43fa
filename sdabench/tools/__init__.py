"""Commands with more than one module, each in a folder of its own."""
