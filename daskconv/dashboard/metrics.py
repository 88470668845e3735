"""Metrics: a run's events in its folder's ``metrics.jsonl``, a line each, written as they happen and read again."""

from __future__ import annotations

import json
import shlex
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from daskconv.dashboard.record import Record
from daskconv.errors import DataError
from daskconv.events import EpochDone, Event, RunBegan, RunEnded, StepDone, WorkerStep, event_of
from daskconv.run.machine import machine

NAME = "metrics.jsonl"
_ABOUT = "About"
# Seconds between two lines of steps, and of where their time goes; and shares of the time so far, so that the file of a
# long run stays small.
_STEPS, _STEPS_SHARE, _TIMES, _TIMES_SHARE = 0.2, 1 / 2000, 2.0, 1 / 10
_LONGEST = 1 << 24  # bytes of a line
_NAMED = 20  # damaged lines that are named one by one


class MetricsFile:
    """A listener that writes a run's events; a folder that holds another run keeps it, under another name.

    Parameters
    ----------
    folder : path
        Made when training begins.
    resumed : bool
        Go on in the file that is there.

    Attributes
    ----------
    begun : bool
        Whether there is a file.
    """

    def __init__(self, folder: str | PathLike[str], resumed: bool = False) -> None:
        self.folder, self.resumed = Path(folder), resumed
        self.begun = False
        self._file: TextIO | None = None
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Write an event, unless enough of its kind were written a moment ago."""
        with self._lock:
            try:
                if isinstance(event, RunBegan):
                    self._begin(event)
                if self._file is not None:
                    for wanted in self._wanted(event):
                        self._write(wanted.asdict())
                    self._file.flush()
            except OSError as error:
                self._file = None
                where = self.folder / NAME
                warnings.warn(
                    f"{where} cannot be written ({error}): training goes on without it.",
                    RuntimeWarning,
                    stacklevel=3,
                )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _begin(self, event: RunBegan) -> None:
        path = self.folder / NAME
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.exists() and not self.resumed:
                path.rename(_free(path))
            self._file, self.begun = path.open("a", encoding="utf-8"), True
            if self._file.tell() and not _ends_with_newline(path):
                self._file.write("\n")  # the process that wrote before was killed in the middle of a line
            self._write({"event": _ABOUT, "time": event.time, "command": _command(), "machine": machine()})
        self._started, self._step_at, self._times_at = event.time, 0.0, 0.0
        self._told: tuple[int, int] | None = None
        self._newest: dict[str, WorkerStep] = {}

    def _write(self, plain: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(plain, separators=(",", ":"), default=float) + "\n")

    def _wanted(self, event: Event) -> list[Event]:
        """Return what to write now: of each kind, something now and then, and the newest at the end."""
        passed = event.time - self._started
        if isinstance(event, StepDone):
            gap = max(_STEPS, passed * _STEPS_SHARE)
            if event.step + 1 < event.steps and event.time - self._step_at < gap:
                return []
            self._step_at = event.time
        elif isinstance(event, WorkerStep):
            # Of one step, what all workers tell.
            if (event.epoch, event.step) != self._told:
                if event.time - self._times_at < max(_TIMES, passed * _TIMES_SHARE):
                    self._newest[event.worker] = event
                    return []
                self._told, self._times_at = (event.epoch, event.step), event.time
            self._newest.pop(event.worker, None)
        elif isinstance(event, RunEnded):
            return [*self._newest.values(), event]
        return [event]


def _command() -> list[str]:
    """Return what was typed, or the script's name and arguments."""
    name = Path(sys.argv[0]).name
    return ["daskconv" if name == "__main__.py" else name, *sys.argv[1:]]


def _free(path: Path) -> Path:
    """Return metrics-1.jsonl, or the first number that is free."""
    number = 1
    while (found := path.with_stem(f"{path.stem}-{number}")).exists():
        number += 1
    return found


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"


@dataclass
class Run:
    """What a run's folder holds.

    Attributes
    ----------
    path : path
    record : Record
    about : dict of str to str
        The command, and the machine that the script ran on.
    damage : list of str
        A sentence for what could not be read.
    """

    path: Path
    record: Record
    about: dict[str, str] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's name, without the ending that ``--save`` gives it."""
        return self.path.resolve().name.removesuffix("-run") or str(self.path)


def read_run(path: str | PathLike[str]) -> Run:
    """Return what a run's folder holds, or the file of its metrics; what is damaged is left out, and named.

    Raises
    ------
    DataError
        Where there are no metrics, or none that can be read.
    """
    where = Path(path)
    file = where if where.is_file() else where / NAME
    if not file.is_file():
        what = "does not exist" if not where.exists() else f"is no run, for it has no {NAME}"
        raise DataError(f"{path} {what}: give the folder of a run that daskconv train wrote.")
    run, events = Run(where if where.is_dir() else file.parent, Record()), list[Event]()
    bad: list[int] = []
    try:
        with file.open("rb") as lines:
            for number, line in _lines(lines):
                if not _take(line, events, run):
                    bad.append(number)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error}): give the folder of a run.") from None
    run.record, left_out = _record(events)
    run.damage = _named(bad, left_out)
    if not run.record.changes:
        raise DataError(f"{file} holds nothing that can be read: it is damaged, or no metrics of daskconv.")
    return run


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(_LONGEST):
        number += 1
        yield number, line


def _take(line: bytes, events: list[Event], run: Run) -> bool:
    """Take a line in; return whether it could be read."""
    if not line.strip():
        return True
    try:
        plain = json.loads(line)
        if plain["event"] == _ABOUT:
            machine = {str(name): str(fact) for name, fact in plain["machine"].items()}
            run.about = {"command": shlex.join(map(str, plain["command"]))} | machine
        else:
            event = event_of(plain)
            numbers = [getattr(event, name, 0) for name in ("time", "epoch", "step", "steps")]
            if not all(isinstance(number, int | float) for number in numbers):
                return False
            events.append(event)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return True


def _record(events: list[Event]) -> tuple[Record, int]:
    """Return the record of a run and of those that went on with it, and how many events did not fit in."""
    record, left_out = Record(), 0
    for event in _joined(events):
        try:
            record.add(event)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, ZeroDivisionError):
            left_out += 1
    return record, left_out


def _joined(events: list[Event]) -> list[Event]:
    """Return the events as those of one run: its clock stands still between its parts, and no step comes twice."""
    found: list[Event] = []
    late, fresh = 0.0, False  # fresh: a part has begun that has not told of a step yet
    for event in events:
        if found and isinstance(event, RunBegan):
            late, fresh = event.time - found[-1].time, True
            start = found[0].time
            found = [one for one in found if not isinstance(one, RunBegan | RunEnded)]
            found.insert(0, replace(event, run=events[0].run, time=start))
            continue
        if fresh and isinstance(event, StepDone):
            place, fresh = (event.epoch, event.step), False
            found = [one for one in found if _place(one) < place]
        found.append(replace(event, run=events[0].run, time=event.time - late))
    return found


def _place(event: Event) -> tuple[int, float]:
    """Return the epoch and step that an event tells of."""
    if isinstance(event, StepDone | WorkerStep):
        return event.epoch, event.step
    return (event.epoch, float("inf")) if isinstance(event, EpochDone) else (-1, 0)


def _named(bad: list[int], left_out: int) -> list[str]:
    said = []
    if bad:
        shown = ", ".join(map(str, bad[:_NAMED])) + (" ..." if len(bad) > _NAMED else "")
        what = f"Line {shown} is" if len(bad) == 1 else f"Lines {shown} ({len(bad)} in all) are"
        said.append(f"{what} damaged and left out.")
    if left_out:
        said.append(f"{left_out} events do not fit to what came before, and are left out.")
    return said
