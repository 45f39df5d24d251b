"""V11: the schedule of GPU and cluster against the closed form of a two-stage pipeline."""

import random
from itertools import pairwise

import pytest

from lumigraph.hardware.equations import pipeline_seconds
from lumigraph.hardware.schedule import FrameWork, best_schedule, schedule


def test_equals_the_pipeline_where_one_side_is_single_v11():
    rng = random.Random(0)
    for _ in range(500):
        batches = rng.choice([1, 2, 3, 8, 17])
        cluster, rest = rng.random(), rng.random() * rng.choice([0.01, 1])
        wanted = pipeline_seconds(cluster, rest, batches=batches)
        before = schedule(FrameWork(rest, cluster, 0.0), batches).seconds
        after = schedule(FrameWork(0.0, cluster, rest), batches).seconds
        assert before == pytest.approx(wanted, abs=1e-9)
        assert after == pytest.approx(wanted, abs=1e-9)


def test_stays_within_its_bounds_v11():
    rng = random.Random(1)
    for _ in range(2000):
        batches = rng.choice([1, 2, 3, 5, 16])
        pre, cluster, post = (rng.random() * rng.choice([0.05, 1]) for _ in range(3))
        found = schedule(FrameWork(pre, cluster, post), batches).seconds
        least = max(pre + post, pre / batches + cluster + post / batches)
        most = pipeline_seconds(cluster, pre + post, batches=batches)
        assert least - 1e-9 <= found <= most + 1e-9


def test_jobs_are_legal():
    work = FrameWork(0.3, 1.0, 0.4, rounds=3)
    frame = schedule(work, 4)
    assert len(frame.jobs) == 3 * 4 * 3
    for resource in ("gpu", "cluster"):
        jobs = sorted((j for j in frame.jobs if j.resource == resource), key=lambda j: j.start)
        assert all(a.end <= b.start + 1e-12 for a, b in pairwise(jobs))
    for batch in range(4):
        own = [j for j in frame.jobs if j.batch == batch]
        assert all(a.end <= b.start + 1e-12 for a, b in pairwise(own))
        assert [j.kind for j in own] == ["pre", "cluster", "post"] * 3
    assert frame.busy("cluster") == pytest.approx(1.0 / frame.seconds)


def test_rounds_overlap_with_two_batches_and_not_with_one():
    work = FrameWork(0.5, 1.0, 0.5, rounds=32)
    assert schedule(work, 1).seconds == pytest.approx(2.0)
    assert schedule(work, 2).seconds < 1.1


def test_batches_are_chosen():
    work = FrameWork(0.02, 0.05, 0.02, launch=5e-6)
    best = best_schedule(work)
    assert best.seconds == min(schedule(work, 1 << k).seconds for k in range(11))
    assert best_schedule(work, batches=4).batches == 4
    assert best_schedule(work, overlap=False).seconds == pytest.approx(0.09, abs=1e-4)
