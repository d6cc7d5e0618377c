"""Layers of PyTorch Geometric Temporal as models; `models` lists and registers them."""
