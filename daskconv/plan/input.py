"""What a process reads of a data set, counted."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True)
class InputRead:
    """What a process has read of a data set.

    Attributes
    ----------
    images, nbytes : int
        As they are stored; where they come in chunks, those of whole chunks.
    seconds : float
        That steps waited for their images, summed over their threads: near 0 where reading ahead hides it all.
    """

    images: int = 0
    nbytes: int = 0
    seconds: float = 0.0

    def __add__(self, other: InputRead) -> InputRead:
        return InputRead(self.images + other.images, self.nbytes + other.nbytes, self.seconds + other.seconds)


class InputCount:
    """Counts what a process reads of a data set; a copy in another process begins at 0.

    Examples
    --------
    >>> count = InputCount()
    >>> count.add(images=2, nbytes=6144)
    >>> count.read
    InputRead(images=2, nbytes=6144, seconds=0.0)
    """

    def __init__(self) -> None:
        self.read, self._change = InputRead(), Lock()

    def add(self, images: int = 0, nbytes: int = 0, seconds: float = 0.0) -> None:
        """Count what was read, or waited for."""
        with self._change:
            self.read += InputRead(images, nbytes, seconds)

    def __reduce__(self) -> tuple[type[InputCount], tuple[()]]:
        return InputCount, ()
