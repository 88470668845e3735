"""Whole scenes: networks over images larger than memory, tile by tile, and their results in Zarr."""
