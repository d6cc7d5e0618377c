"""Memory: what is available, malloc's policy, what a process and a training step take."""
