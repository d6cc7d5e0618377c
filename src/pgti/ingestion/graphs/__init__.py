"""Graphs in files and from Python, and the sensors that their nodes are."""
