"""Cells simulated on all cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import Thread
from types import FrameType

import click

from bench.simulate.cell import Cell, simulate
from bench.simulate.figures import Row

__all__ = ["simulate_all"]


def simulate_all(cells: Sequence[Cell], jobs: int | None = None) -> Generator[Row, None, None]:
    """The row of each cell, in their order, as soon as it and all before it are there.

    `jobs`: how many processes; None: one for each core. Whoever leaves early closes the iterator,
    which ends the processes. Raises click.ClickException if one of them is killed.
    """
    # Fresh processes: a row depends on nothing that was simulated before it.
    workers = ProcessPoolExecutor(
        max(1, min(jobs or os.cpu_count() or 1, len(cells))),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
    )
    with workers:
        try:
            yield from workers.map(simulate, cells)
        except BrokenProcessPool as error:
            raise click.ClickException(
                "a process was killed while it simulated; if memory was short, try --jobs 1 or a "
                "smaller --scale"
            ) from error
        except BaseException:  # GeneratorExit too: what still runs may take minutes
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _begin() -> None:
    """In each process, before its first cell."""
    _end_silently_on_interrupt()
    Thread(target=_end_with_the_first, daemon=True).start()


def _end_with_the_first() -> None:
    """A process that waits for cells would wait for ever once the first is killed."""
    first = multiprocessing.parent_process()
    if first is not None:
        first.join()
        os._exit(1)


def _end_silently_on_interrupt() -> None:
    """Ctrl-C reaches every process of a terminal; what is to be said about it, the first says."""

    def end(signum: int, frame: FrameType | None) -> None:
        os._exit(130)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGINT, end)
