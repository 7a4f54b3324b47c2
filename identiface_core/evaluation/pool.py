"""Work spread over processes, one thread each, so that the numbers do not depend on how many there are."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


def spread(
    do: Callable[[Job], Result],
    jobs: Sequence[Job],
    processes: int,
    prepare: Callable[..., None],
    arguments: tuple[Any, ...] = (),
) -> Iterator[tuple[int, Result]]:
    """(place in `jobs`, what `do` gives), in the order in which they are done.

    processes: worker processes, each of which calls `prepare(*arguments)` first; with 1 or less it is done here. Every
    process computes with one thread. What an error of a job raises is raised here, and no further job is begun.
    """
    if not jobs:
        return
    if processes <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            prepare(*arguments)
            for place, job in enumerate(jobs):
                yield place, do(job)
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(processes, len(jobs)), mp_context=context, initializer=_begin, initargs=(prepare, arguments)
    ) as pool:
        places = {pool.submit(do, job): place for place, job in enumerate(jobs)}
        try:
            for job_done in as_completed(places):
                yield places[job_done], job_done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin(prepare: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    prepare(*arguments)
