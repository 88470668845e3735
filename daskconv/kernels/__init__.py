"""Kernels: one block of NumPy in, one out. They run on the calling thread and never import Dask."""
