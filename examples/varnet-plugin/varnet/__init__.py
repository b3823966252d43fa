"""VarNet, an example of a plugin for sdabench."""
