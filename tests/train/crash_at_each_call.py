"""Write a checkpoint again and again; each time the process ends, or the disk is full, one call later.

Every call by which the checkpoint changes the disk is one of `os`. Three kinds of crash: before a call, after it (of a
write, in the middle), and a loss of power, which takes with it what was not forced to the disk: the contents of files
without an fsync and, or not, a rename without an fsync of its folder. Prints what was found as a JSON line.
"""

import errno
import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path

from daskconv import Checkpoints
from daskconv.errors import DataError
from daskconv.train.checkpoints import folder, write
from daskconv.train.files import load_checkpoint
from train.small import digests, fit, trainer

CALLS = ("mkdir", "open", "write", "fsync", "rename", "close")


class Disk:
    """Counts the calls, and ends at one of them."""

    def __init__(self, at=None, how="before"):
        self.at, self.how, self.calls = at, how, []
        self.paths, self.dirty, self.renamed = {}, set(), []
        self.real = {name: getattr(os, name) for name in CALLS}
        for name in CALLS:
            setattr(os, name, lambda *args, name=name, **options: self.call(name, *args, **options))

    def call(self, name, *args, **options):
        self.calls.append(name)
        now = len(self.calls) - 1 == self.at
        if now and self.how == "full":
            if name == "close":
                self.real["close"](*args)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if now and self.how == "before":
            os._exit(9)
        if now and name == "write" and self.how == "after":
            self.real["write"](args[0], args[1][: len(args[1]) // 2])
            os._exit(9)
        result = self.real[name](*args, **options)
        self.note(name, args, result)
        if now and self.how.startswith("power"):
            self.lose_power()
        if now:
            os._exit(9)
        return result

    def note(self, name, args, result):
        if name == "open":
            self.paths[result] = Path(args[0])
        if name == "write":
            self.dirty.add(self.paths[args[0]])
        if name == "fsync":
            path = self.paths[args[0]]
            self.dirty.discard(path)
            self.renamed = [pair for pair in self.renamed if pair[1].parent != path]
        if name == "rename":
            before, after = Path(args[0]), Path(args[1])
            self.renamed.append((before, after))
            self.dirty = {
                after / path.relative_to(before) if path.is_relative_to(before) else path
                for path in self.dirty
            }

    def lose_power(self):
        for path in self.dirty:
            if path.exists():
                os.truncate(path, path.stat().st_size // 2)
        if self.how == "power":
            for before, after in reversed(self.renamed):
                self.real["rename"](after, before)


def child(job):
    """Run a job in a process of its own; return how that ended."""
    process = os.fork()
    if not process:
        try:
            job()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(where):
    one = fit(trainer())
    fit(one, epochs=2, checkpoint=Checkpoints(where / "old"))
    old = load_checkpoint(where / "old")
    new = fit(one, epochs=3).checkpoint()
    expected = {c.state.steps: digests(c.state.params | c.state.slots) for c in (old, new)}
    target = where / "work"
    found = {"kills": 0, "lost power": 0, "full disks": 0, "before": 0, "after": 0}

    def begin_anew():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(where / "old", target)

    def loads():
        checkpoint = load_checkpoint(target)
        assert digests(checkpoint.state.params | checkpoint.state.slots) == expected[checkpoint.state.steps]
        found["after" if checkpoint.state.steps == new.state.steps else "before"] += 1

    def write_once(at, how):
        disk = Disk(at, how)
        write.write(target, new, {})
        return disk

    def expect_full(at, how):
        try:
            write_once(at, how)
        except DataError as error:
            assert "No space left on device" in str(error), error
            return
        raise AssertionError("a full disk was not heard of")

    begin_anew()
    reader, writer = os.pipe()
    assert child(lambda: os.fdopen(writer, "w").write(json.dumps(write_once(None, "").calls))) == 0
    os.close(writer)
    found["calls"] = json.loads(os.fdopen(reader).read())
    loads()
    for how in ("power", "power, renames kept"):
        # What is said to be on the disk outlasts a loss of power.
        begin_anew()
        assert child(partial(lambda how: write_once(None, how).lose_power(), how)) == 0
        assert load_checkpoint(target).state.steps == new.state.steps, how
    for at in range(len(found["calls"])):
        for how in ("before", "after", "power", "power, renames kept", "full"):
            begin_anew()
            code = child(partial(expect_full if how == "full" else write_once, at, how))
            assert code == (0 if how == "full" else 9), (at, how, code)
            loads()
            found[{"full": "full disks", "before": "kills", "after": "kills"}.get(how, "lost power")] += 1
            # Whatever is left, the next checkpoint can be written.
            folder.sweep(target)
            if how == "full":
                assert not [name for name in os.listdir(target) if name.startswith(".")]
            write.write(target, new, {})
            loads()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
