"""The heap: what a step frees stays with the process, for the next step.

By its defaults the C library hands memory back to the system as soon as enough of it is free, and Dask's workers tell
it to do so even sooner. A step frees all it has: the next one would be given each page anew, and the system fills a
page with zeros first, which is more work than many a layer has.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

# Of glibc's malloc.h. Blocks above the second are mapped, and given back, one by one; it takes no more than this.
_TRIM_THRESHOLD, _TRIM_NEVER = -1, 2**31 - 1
_MMAP_THRESHOLD, _MMAP_LARGEST = -3, 32 << 20


@cache
def keep() -> None:
    """Let this process keep what it frees; where the C library is not glibc, nothing happens."""
    library = _library()
    if hasattr(library, "mallopt"):
        library.mallopt(_TRIM_THRESHOLD, _TRIM_NEVER)
        library.mallopt(_MMAP_THRESHOLD, _MMAP_LARGEST)


def release() -> None:
    """Give what is free back to the system: the steps are over."""
    library = _library()
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


@cache
def _library() -> Any:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # not a POSIX system
        return None
