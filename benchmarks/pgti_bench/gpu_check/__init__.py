"""`pgti-bench gpu-check`: correctness and speed of everything on one GPU, in one table."""
