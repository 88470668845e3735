"""Labelled images, ready for training: real data sets and readers for the files people hold.

Every reader returns a `Dataset`; `load` picks the reader from a name or a path. Zarr, Pillow and Dask are
imported by the readers that need them, when they are called.
"""

from daskconv.datasets.cifar import cifar10
from daskconv.datasets.dataset import Dataset
from daskconv.datasets.digits import digits
from daskconv.datasets.folder import image_folder
from daskconv.datasets.load import load
from daskconv.datasets.npz import from_npz
from daskconv.datasets.zarr_store import from_zarr

__all__ = ["Dataset", "cifar10", "digits", "from_npz", "from_zarr", "image_folder", "load"]
