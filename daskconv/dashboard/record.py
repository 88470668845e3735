"""Record: a run's history, fed by events; what every figure is drawn from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from daskconv.events import (
    EpochDone,
    Event,
    RunBegan,
    RunEnded,
    SceneBegan,
    StepDone,
    TilesDone,
    WorkerStep,
)

# Points of a curve: where there are more, every other one goes.
_POINTS = 1200
# The newest events of a worker: workers tell of the same steps, but not at the same moment.
_KEPT = 4
# Seconds over which a rate means something.
_APART = 0.4

Place = tuple[int, ...]


@dataclass(frozen=True)
class Point:
    """A point of the curves: all steps so far, seconds since the run began, and figures by name."""

    step: int
    seconds: float
    figures: dict[str, float]


@dataclass
class Curve:
    """Points in order, thinned out where they are many."""

    points: list[Point] = field(default_factory=list)
    _every: int = 1
    _seen: int = 0

    def add(self, point: Point) -> None:
        """Add a point, or leave it out where points are kept only now and then."""
        self._seen += 1
        if self._seen % self._every:
            return
        self.points.append(point)
        if len(self.points) >= _POINTS:
            del self.points[:-1:2]
            self._every *= 2

    def columns(self, name: str) -> tuple[list[int], list[float], list[float]]:
        """Return steps, seconds and values of the points that have a figure of this name."""
        found = [point for point in self.points if name in point.figures]
        return [p.step for p in found], [p.seconds for p in found], [p.figures[name] for p in found]

    @property
    def names(self) -> list[str]:
        """The names of all figures, in the order in which they came."""
        return list(dict.fromkeys(name for point in self.points for name in point.figures))


@dataclass
class Scene:
    """A map of tiles: how many along each axis, and which are done, were done by a run before, and run."""

    name: str
    blocks: tuple[int, ...]
    keys: tuple[str, ...]
    done: set[Place]
    before: frozenset[Place]
    running: set[Place] = field(default_factory=set)


@dataclass
class Record:
    """One run's history.

    Attributes
    ----------
    began : RunBegan or None
    ended : RunEnded or None
    training, validation : Curve
        Of the steps, and of the epochs' ends.
    speed : Curve
        Images a second: "total", and "mean", "slowest" and "fastest" of the workers.
    workers : dict of str to list of WorkerStep
        The newest events of each worker.
    scene : Scene or None
    changes : int
        Grows with every event that is taken in.

    Examples
    --------
    >>> record = Record.of([StepDone(0, 4, 10, 100, (), {"loss": 2.0}, run="a", time=1.0)])
    >>> record.training.columns("loss")
    ([5], [0.0], [2.0])
    """

    began: RunBegan | None = None
    ended: RunEnded | None = None
    training: Curve = field(default_factory=Curve)
    validation: Curve = field(default_factory=Curve)
    speed: Curve = field(default_factory=Curve)
    workers: dict[str, list[WorkerStep]] = field(default_factory=dict)
    newest: StepDone | None = None
    scene: Scene | None = None
    run: str = ""
    started: float = 0.0
    changes: int = 0
    _since: StepDone | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Record:
        """Return the record of some events, in their order."""
        record = cls()
        for event in events:
            record.add(event)
        return record

    def add(self, event: Event) -> None:
        """Take an event in; one of a new run begins the record anew, a late one of another run is dropped."""
        if isinstance(event, RunBegan | SceneBegan) or not self.run:
            changes = self.changes
            self.__init__(run=event.run, started=event.time, changes=changes)  # type: ignore[misc]
        if event.run != self.run:
            return
        self.changes += 1
        if isinstance(event, RunBegan):
            self.began = event
        elif isinstance(event, StepDone):
            self._add_step(event)
        elif isinstance(event, EpochDone):
            self._add_epoch(event)
        elif isinstance(event, WorkerStep):
            self.workers.setdefault(event.worker, []).append(event)
            del self.workers[event.worker][:-_KEPT]
        elif isinstance(event, RunEnded):
            self.ended = event
        elif isinstance(event, SceneBegan):
            done = {tuple(place) for place in event.done}
            self.scene = Scene(event.name, tuple(event.blocks), tuple(event.keys), done, frozenset(done))
        elif isinstance(event, TilesDone) and self.scene is not None:
            self.scene.done.update(tuple(place) for place in event.places)
            self.scene.running = {tuple(place) for place in event.running} - self.scene.done

    def _add_step(self, event: StepDone) -> None:
        at, seconds = event.epoch * event.steps + event.step + 1, event.time - self.started
        if event.figures:
            self.training.add(Point(at, seconds, dict(event.figures)))
        self.newest = event
        before = self._since
        # Between epochs there is an evaluation, which no images are trained in.
        if before is None or before.epoch != event.epoch:
            self._since = event
        elif event.time - before.time >= _APART:
            rate = (event.images - before.images) / (event.time - before.time)
            self.speed.add(Point(at, seconds, {"total": rate, **self._rates()}))
            self._since = event

    def _add_epoch(self, event: EpochDone) -> None:
        steps = self.newest.steps if self.newest else self.began.steps if self.began else 0
        at, seconds = (event.epoch + 1) * steps, event.time - self.started
        found = {k.removeprefix("val_"): v for k, v in event.figures.items() if k.startswith("val_")}
        if found:
            self.validation.add(Point(at, seconds, found))
        if "images_per_second" in event.figures:
            total = event.figures["images_per_second"]
            self.speed.add(Point(at, seconds, {"total": total, **self._rates()}))

    def _rates(self) -> dict[str, float]:
        """Return the images a second of the workers, by what each told last."""
        newest = [told[-1] for told in self.workers.values()]
        rates = [event.images / event.seconds for event in newest if event.seconds]
        if not rates:
            return {}
        return {"mean": sum(rates) / len(rates), "slowest": min(rates), "fastest": max(rates)}

    @property
    def steps_seen(self) -> dict[str, WorkerStep]:
        """By worker, in the order of their names, an event of one step that as many of them as can be tell of."""
        counts: dict[tuple[int, int], int] = {}
        for told in self.workers.values():
            for event in told:
                if event.layers:
                    counts[event.epoch, event.step] = counts.get((event.epoch, event.step), 0) + 1
        most = max(counts.values(), default=0)
        shared = max((at for at, count in counts.items() if count == most), default=None)
        return {
            name: next((e for e in self.workers[name] if (e.epoch, e.step) == shared), self.workers[name][-1])
            for name in sorted(self.workers, key=_in_order)
        }


def _in_order(name: str) -> tuple[int, int, str]:
    """Sort 10 after 9, and numbers before names."""
    return (0, int(name), "") if name.isdigit() else (1, 0, name)
