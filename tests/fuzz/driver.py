"""Driver: seeds to worker processes, records to a file; goes on where an earlier run stopped.

A worker that dies or does not answer is replaced, and its seed recorded: nothing stops a run.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.fuzz.records import Record, append, latest, load, mend

Examine = Callable[[int], Record]
"""A seed to its record; importable by name, as it runs in other processes."""

PATIENCE = 1800.0  # seconds of the clock without an answer: code that the limits within a process do not reach


@dataclass
class Worker:
    """A process and the seed that it works on."""

    process: BaseProcess
    pipe: "Connection[Any, Any]"
    seed: int
    since: float | None = None  # when it began; a process that starts has no such time

    def stop(self) -> None:
        """End the process."""
        self.pipe.close()
        if self.process.is_alive():
            self.process.terminate()
        self.process.join()


def pending(seeds: Iterable[int], path: Path | None, again: Sequence[str] = ()) -> list[int]:
    """The seeds without a record, and those whose last verdict is in `again`."""
    done = {} if path is None else {r["seed"]: r["verdict"] for r in latest(load(path))}
    return [s for s in seeds if s not in done or done[s] in again]


def shard(seeds: Sequence[int], text: str) -> Sequence[int]:
    """Every n-th seed from the i-th, for "i/n" with 1 ≤ i ≤ n.

    Raises:
        ValueError: the text is none of this kind.
    """
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ValueError(f"shard {text!r}, expected i/n with 1 ≤ i ≤ n")
    return seeds[int(part) - 1 :: int(parts)]


def drive(
    examine: Examine,
    seeds: Iterable[int],
    *,
    workers: int = 1,
    out: Path | None = None,
    patience: float = PATIENCE,
    until: float | None = None,
    report: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """The records of the seeds, in the order in which they were done; each is appended to `out` at once.

    No seed is begun after `until` of `time.monotonic`.
    """
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        mend(out)
    left, records = list(seeds)[::-1], []
    context = multiprocessing.get_context("spawn")

    def start() -> Worker:
        """A process with its first seed, which it takes when it has started."""
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, examine), daemon=True)
        process.start()
        there.close()
        seed = left.pop()
        here.send(seed)
        return Worker(process, here, seed)

    def more() -> bool:
        return bool(left) and (until is None or time.monotonic() < until)

    def keep(record: Record) -> None:
        records.append(record)
        if out is not None:
            append(out, record)
        report(record)

    pool = [start() for _ in range(min(workers, len(left)))] if more() else []
    try:
        while pool:
            ready = wait([w.pipe for w in pool], timeout=min(1.0, patience))
            for worker in list(pool):
                found = _answer(worker, worker.pipe in ready, patience)
                if found is None:
                    continue
                keep(found)
                if more() and not found.get("lost"):
                    worker.seed, worker.since = left.pop(), time.monotonic()
                    worker.pipe.send(worker.seed)
                    continue
                worker.stop()
                pool.remove(worker)
                if more():
                    pool.append(start())
    finally:
        for worker in pool:
            worker.stop()
    return records


def _answer(worker: Worker, ready: bool, patience: float) -> Record | None:
    """What a worker says, or what is recorded of one that says nothing any more."""
    if ready:
        try:
            found: Record | None = worker.pipe.recv()
        except EOFError:
            worker.process.join()
            note = f"the process ended with exit code {worker.process.exitcode}"
            return {"seed": worker.seed, "verdict": "crashed", "note": note, "lost": True}
        if found is None:  # it has started
            worker.since = time.monotonic()
        return found
    if worker.since is None or time.monotonic() - worker.since < patience:
        return None
    note = f"no answer within {patience:.0f} s"
    return {"seed": worker.seed, "verdict": "slow", "note": note, "lost": True}


def _serve(pipe: "Connection[Any, Any]", examine: Examine) -> None:
    """Answer seeds with records until the other end closes."""
    pipe.send(None)
    while True:
        try:
            seed = pipe.recv()
        except EOFError:
            return
        pipe.send(examine(seed))
