"""The time and memory of a training step, beside its matrix products alone and PGT's step."""
