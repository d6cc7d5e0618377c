"""How fast batches are made, beside PGT's loader and a plain copy of memory."""
