"""Layers of PyTorch Geometric Temporal made forecasters; `pgti.models.pgt_layers` lists them."""
