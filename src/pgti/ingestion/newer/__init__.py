"""Newer readings of a series: matched with it, appended to it."""
