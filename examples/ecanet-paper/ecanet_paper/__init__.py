"""The tables of the README of ECA-Net's repository, as a plugin for sdabench."""
