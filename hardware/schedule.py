"""GPU and cluster taking turns: a discrete-event schedule of two resources.

A frame is K batches of rays, each of R rounds (pre-processing on the GPU, encoding and networks on
the cluster, post-processing on the GPU); a round needs the one before it in its batch, batches are
independent. A resource does one job at a time, without interruption. The GPU prefers
pre-processing, which keeps the cluster busy. Launches add up on the host.

With one round and nothing before or after the cluster the length is that of the closed form in
`equations.py`; with both it lies between max(K g, pre + K n + post) and that.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from .equations import pipeline_seconds

MOST_BATCHES = 1024
MOST_PARTS = 2048
"""Batches times rounds that are tried: finer ones change a frame by less than 0.1 %."""
MOST_ROUNDS = 64
"""Longer frames are scheduled with so many equal rounds: the ends are all that changes."""


@dataclass(frozen=True)
class Job:
    """A part of the schedule."""

    resource: str
    """gpu or cluster."""
    kind: str
    """pre, cluster or post."""
    batch: int
    round: int
    start: float
    """Seconds."""
    end: float


@dataclass(frozen=True)
class FrameWork:
    """Seconds of a whole frame."""

    pre: float
    cluster: float
    post: float
    launch: float = 0.0
    """For each batch and round."""
    rounds: int = 1


@dataclass(frozen=True)
class FrameSchedule:
    """A frame."""

    seconds: float
    batches: int
    jobs: tuple[Job, ...]

    def busy(self, resource: str) -> float:
        """Share of the frame that a resource works."""
        work = sum(job.end - job.start for job in self.jobs if job.resource == resource)
        return work / self.seconds if self.seconds else 0.0


def schedule(work: FrameWork, batches: int) -> FrameSchedule:
    """Simulate a frame cut into so many batches."""
    rounds = min(work.rounds, MOST_ROUNDS)
    parts = batches * rounds
    length = {"pre": work.pre / parts, "cluster": work.cluster / parts, "post": work.post / parts}
    after = {"pre": "cluster", "cluster": "post", "post": "pre"}
    order = {"pre": 0, "cluster": 0, "post": 1}
    free = {"gpu": True, "cluster": True}
    waiting: dict[str, list[tuple[int, int, int, str]]] = {"gpu": [], "cluster": []}
    for batch in range(batches):
        heapq.heappush(waiting["gpu"], (0, 0, batch, "pre"))
    running: list[tuple[float, int, str, str, int, int]] = []
    now, count, jobs = 0.0, 0, []

    def begin() -> Iterator[tuple[str, Job]]:
        for resource, queue in waiting.items():
            if free[resource] and queue:
                _, round_, batch, kind = heapq.heappop(queue)
                end = now + length[kind]
                yield resource, Job(resource, kind, batch, round_, now, end)

    while True:
        for resource, job in begin():
            free[resource] = False
            count += 1
            heapq.heappush(running, (job.end, count, resource, job.kind, job.batch, job.round))
            jobs.append(job)
        if not running:
            break
        now = running[0][0]
        while running and running[0][0] == now:
            _, _, resource, kind, batch, round_ = heapq.heappop(running)
            free[resource] = True
            following, next_round = after[kind], round_ + (kind == "post")
            if next_round < rounds:
                queue = waiting["cluster" if following == "cluster" else "gpu"]
                heapq.heappush(queue, (order[following], next_round, batch, following))
    return FrameSchedule(now + parts * work.launch, batches, tuple(jobs))


def best_schedule(
    work: FrameWork, *, batches: int | str = "auto", overlap: bool = True
) -> FrameSchedule:
    """A frame with the given number of batches, or the best power of two."""
    if not overlap:
        return schedule(work, 1)
    if isinstance(batches, int):
        return schedule(work, batches)
    rest, rounds = work.pre + work.post, min(work.rounds, MOST_ROUNDS)
    powers = [1 << k for k in range(MOST_BATCHES.bit_length())]
    options = [k for k in powers if k == 1 or k * rounds <= MOST_PARTS]

    def estimate(k: int) -> float:
        return pipeline_seconds(work.cluster, rest, batches=k, launch=work.launch * rounds)

    # the closed form finds the region; the schedule itself decides between neighbours
    likely = min(options, key=estimate)
    near = [k for k in (likely // 2, likely, likely * 2) if k in options]
    return min((schedule(work, k) for k in near), key=lambda frame: (frame.seconds, frame.batches))
