"""Start a plugin: a folder with networks and tables of your own."""
