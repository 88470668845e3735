"""Graphs: cut arrays into blocks, move blocks between tasks; the arithmetic is the kernels'."""
