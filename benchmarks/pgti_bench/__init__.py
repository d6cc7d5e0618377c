"""Benchmarks of pgti: library functions with typed results, and a command for each.

Not part of the pgti distribution. `python -m pgti_bench --help` lists the commands.
"""
