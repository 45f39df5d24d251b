"""V15 and V16: hits of caches against stack distances, and Che's approximation against both."""

import numpy as np
import pytest

from lumigraph.hardware.analytic import che_hits
from lumigraph.hardware.cluster import ClusterSpec
from lumigraph.hardware.cycle.caches import CacheShape, LruCache, fetched_lines
from lumigraph.hardware.cycle.model import simulate_cycles
from lumigraph.hardware.synthetic import pattern
from lumigraph.hardware.workloads import workload


def stack_distance_hits(stream, capacity):
    """Hits of a fully associative LRU memory: fewer than `capacity` other items since the last
    use. From the definition, quadratic."""
    last, hits = {}, 0
    for place, item in enumerate(stream):
        if item in last:
            hits += len(set(stream[last[item] + 1 : place])) < capacity
        last[item] = place
    return hits


def streams():
    rng = np.random.default_rng(3)
    yield rng.integers(0, 40, 800).tolist()
    yield rng.zipf(1.3, 800).tolist()
    yield (np.arange(800) % 23).tolist()


@pytest.mark.parametrize("capacity", (1, 4, 16, 22, 23, 64))
def test_lru_v15(capacity):
    for stream in streams():
        cache = LruCache(1, capacity)
        assert sum(cache.touch(line) for line in stream) == stack_distance_hits(stream, capacity)


def test_sets_are_caches_of_their_own():
    stream = np.random.default_rng(1).integers(0, 64, 900)
    cache = LruCache(4, 3)
    hits = sum(cache.touch(int(line)) for line in stream)
    assert hits == sum(stack_distance_hits(stream[stream % 4 == s].tolist(), 3) for s in range(4))


def test_larger_memories_never_miss_more_v8():
    stream = np.random.default_rng(2).zipf(1.2, 3000).tolist()
    hits = []
    for capacity in (1, 2, 4, 8, 64, 512):
        cache = LruCache(1, capacity)
        hits.append(sum(cache.touch(line) for line in stream))
    assert hits == sorted(hits)


@pytest.mark.parametrize("law", ["uniform", "zipf"])
@pytest.mark.parametrize("capacity", (20, 100))
def test_che_v16(law, capacity):
    items = 400
    weights = np.ones(items) if law == "uniform" else 1 / np.arange(1, items + 1)
    weights /= weights.sum()
    stream = np.random.default_rng(5).choice(items, 60_000, p=weights)
    cache = LruCache(1, capacity)
    simulated = sum(cache.touch(int(line)) for line in stream) / len(stream)
    predicted = float((weights * che_hits(weights, capacity)).sum())
    assert predicted == pytest.approx(simulated, abs=0.03)


def test_tables_that_fit_never_miss():
    cluster = ClusterSpec().with_settings({"nfp.count": 1})
    shape = CacheShape.of(cluster, workload("nerf").encoding)
    assert all(shape.fits(level) for level in range(16))  # one byte a feature: exactly 1 MiB
    half = cluster.with_settings({"nfp.encoding.feature_bits": 16})
    shape = CacheShape.of(half, workload("nerf").encoding)
    assert [shape.fits(level) for level in range(16)].count(False) == 12
    shape = CacheShape.of(half, workload("gia").encoding)
    assert all(shape.fits(level) for level in range(16))
    dense = CacheShape.of(cluster, workload("nerf", "dense").encoding)
    assert not dense.fits(7)


def test_what_was_loaded_at_the_start_hits():
    cluster = ClusterSpec().with_settings({"nfp.encoding.feature_bits": 16, "nfp.count": 1})
    encoding = workload("nsdf", "dense").encoding
    shape = CacheShape.of(cluster, encoding)
    low = pattern("uniform", 200, seed=1) * np.float32([1, 1, 0.02])  # first slices of the table
    near, _ = fetched_lines(low, encoding, shape)
    assert near.sum() == 0
    high = low + np.float32([0, 0, 0.9])
    near, far = fetched_lines(high, encoding, shape)
    assert near.sum() > 0 and (far <= near).all()


@pytest.mark.parametrize("replacement", ["lru", "pinned"])
def test_ideal_memories_are_at_least_as_fast(replacement):
    pytest.importorskip("numba")
    points, rays = pattern("uniform", 2000), np.arange(2000)
    settings = {"nfp.encoding.feature_bits": 16, "nfp.encoding.replacement": replacement}
    honest = ClusterSpec().with_settings(settings)
    ideal = honest.with_settings({"capacity": "ideal"})
    slow = simulate_cycles(points, rays, workload("nsdf"), honest)
    fast = simulate_cycles(points, rays, workload("nsdf"), ideal)
    assert fast.frame_cycles < slow.frame_cycles
    assert fast.moved_bytes()["line_bytes"] == 0 < slow.moved_bytes()["line_bytes"]
    assert sum(t.miss.sum() for t in slow.timings) > 0
