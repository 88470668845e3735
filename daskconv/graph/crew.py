"""A crew: threads that run a graph by taking ready tasks themselves, with no scheduler between them.

``dask.threaded`` hands out each task from one thread more, which costs about 100 microseconds a task where all
cores are busy. Here the thread that ends a task takes the next one, which costs a quarter of that, and the
calling thread is one of the crew. Dask's callbacks (progress bars, profilers) see the tasks as always.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from dask._task_spec import GraphNode
from dask.callbacks import local_callbacks, unpack_callbacks

from daskconv import timeline
from daskconv.graph.team import Count, helped


class Crew:
    """One run of a graph of Dask tasks.

    Parameters
    ----------
    graph : mapping of keys to tasks
        Of two ready tasks, the one that comes first in it is taken first; but a thread goes on with what its last
        task made ready, whose inputs are in its caches.
    """

    def __init__(self, graph: Mapping[Hashable, GraphNode]) -> None:
        self.graph, self.keys = graph, list(graph)
        self.values: dict[Hashable, Any] = {}
        self.error: BaseException | None = None
        self._change, self._news = threading.Lock(), Count()
        self._missing = [len(task.dependencies) for task in graph.values()]
        self._ready = [at for at, count in enumerate(self._missing) if not count]
        self._followers: dict[Hashable, list[int]] = {key: [] for key in self.keys}
        self._readers: dict[Hashable, int] = {}
        for at, task in enumerate(graph.values()):
            for key in task.dependencies:
                self._followers[key].append(at)
        # What Dask's callbacks read of a scheduler.
        self._state: dict[str, Any] = {
            "ready": set(),
            "running": set(),
            "finished": set(),
            "cache": self.values,
        }
        self._state["waiting"] = set(self.keys)

    def run(self, keys: Sequence[Hashable], threads: int) -> list[Any]:
        """Run all tasks on the calling thread and ``threads - 1`` others; return the values of ``keys``."""
        # A value is let go with its last reader; what was asked for has one more.
        self._readers = {key: len(followers) for key, followers in self._followers.items()}
        for key in keys:
            self._readers[key] += 1
        with local_callbacks() as callbacks:
            start, start_state, self._before, self._after, finish = unpack_callbacks(callbacks)
            for call in start:
                call(self.graph)
            for call in start_state:
                call(self.graph, self._state)
            self._place = timeline.place()
            with helped(max(0, min(threads, len(self.keys)) - 1), self._work):
                self._work()
            for call in finish:
                call(self.graph, self._state, self.error is not None)
        if self.error is not None:
            raise self.error
        return [self.values[key] for key in keys]

    def _work(self) -> None:
        """Take and run tasks until none is left or one has failed."""
        with timeline.standing_at(self._place):
            self._work_here()

    def _work_here(self) -> None:
        try:
            key = self._take()
            while key is not None:
                for call in self._before:
                    call(key, self.graph, self._state)
                value = self.graph[key](self.values)
                follower = self._end(key, value)
                for call in self._after:
                    call(key, value, self.graph, self._state, threading.get_ident())
                key = follower if follower is not None else self._take()
        except BaseException as error:
            with self._change:
                self.error = self.error or error
            self._news.rise()

    def _take(self) -> Hashable | None:
        while True:
            with self._change:
                if self.error is not None:
                    return None
                if self._ready:
                    return self._taken(self._ready[0])
                if not self._state["waiting"]:
                    return None
                seen = self._news.value
            self._news.wait(seen + 1)

    def _taken(self, at: int) -> Hashable:
        del self._ready[bisect_left(self._ready, at)]
        key = self.keys[at]
        self._state["waiting"].remove(key)
        self._state["running"].add(key)
        return key

    def _end(self, key: Hashable, value: Any) -> Hashable | None:
        """Hand on a task's value; return the first of the tasks that are ready since, which this thread takes."""
        own: list[int] = []
        with self._change:
            if self._readers[key]:
                self.values[key] = value
            for read in self.graph[key].dependencies:
                self._readers[read] -= 1
                if not self._readers[read]:
                    del self.values[read]
            self._state["running"].remove(key)
            self._state["finished"].add(key)
            for at in self._followers[key]:
                self._missing[at] -= 1
                if not self._missing[at]:
                    insort(self._ready, at)
                    own.append(at)
            follower = self._taken(min(own)) if own and self.error is None else None
            # Without a follower this thread takes another one; where no task waits any more, the others go home.
            spare = len(self._ready) - (follower is None)
            for_others = spare > 0 or not self._state["waiting"]
        if for_others:
            self._news.rise()
        return follower
