"""Images whose chunks lie in the memory of a cluster: they stay there, and a task is given those that it reads."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from distributed import Future, futures_of, wait
from numpy.typing import NDArray

from daskconv.plan.input import InputCount
from daskconv.train.images import Cache, Images, Indices, cache_bytes, images_of_chunks, raise_not_finite


class OnCluster(Images):
    """A Dask array of persisted chunks.

    On a worker, the chunks are those that its tasks have as dependencies: Dask brings them, in advance too, and
    computes lost ones again. On the driver a chunk is fetched when it is read.

    Parameters
    ----------
    x : Dask array (n, h, w, c)
    name : str
    """

    edges: Sequence[int]

    def __init__(self, x: Any, name: str) -> None:
        client = futures_of(x)[0].client
        x = client.persist(x.rechunk({1: -1, 2: -1, 3: -1}))
        wait(x)
        self.edges = [0, *np.cumsum(x.chunks[0]).tolist()]
        self.shape, self.dtype, self.image_bytes = x.shape[1:], x.dtype, x[0].nbytes
        by_key = {future.key: future for future in futures_of(x)}
        self.futures = [by_key[(x.name, chunk, 0, 0, 0)] for chunk in range(len(x.chunks[0]))]
        self.count, self.cache = InputCount(), Cache(cache_bytes())
        self._forget()
        if np.issubdtype(x.dtype, np.floating):
            raise_not_finite(x, name)

    def _forget(self) -> None:
        self.held: dict[Hashable, Mapping[int, NDArray]] = {}
        self.change = Lock()

    def __getstate__(self) -> dict[str, Any]:
        left = ("futures", "held", "change")
        return {name: value for name, value in vars(self).items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def chunks(self, indices: Sequence[Indices]) -> dict[int, Future]:
        """Return the chunks of some images."""
        owners = [np.unique(np.searchsorted(self.edges, each, side="right") - 1).tolist() for each in indices]
        return {chunk: self.futures[chunk] for chunk in sorted(set().union(*owners))}

    def hold(self, by: Hashable, chunks: Mapping[int, NDArray]) -> None:
        """Take chunks to read from, instead of those that were held for the same purpose."""
        with self.change:
            before = self.held.get(by, {})
            self.held = {**self.held, by: chunks}
        for chunk in chunks.keys() - before.keys():
            self.count.add(len(chunks[chunk]), chunks[chunk].nbytes)

    def take(self, indices: Indices) -> NDArray:
        """Return some images."""
        return images_of_chunks(indices, self.edges, self._chunk, (self.shape, self.dtype))

    def _chunk(self, chunk: int) -> NDArray:
        for chunks in self.held.values():
            if chunk in chunks:
                return chunks[chunk]
        return self.cache.get(chunk, self._fetch)

    def _fetch(self, chunk: int) -> NDArray:
        block = np.asarray(self.futures[chunk].result())
        self.count.add(len(block), block.nbytes)
        return block

    def keep_at_most(self, nbytes: int) -> None:
        """Keep no more bytes of chunks, but for the newest one."""
        self.cache.nbytes = min(self.cache.nbytes, nbytes)


def on_cluster(x: Any) -> bool:
    """Return whether a Dask array is made of futures, which no task may wait for."""
    nodes = dict(x.__dask_graph__()).values()
    return any(isinstance(getattr(node, "value", node), Future) for node in nodes)
