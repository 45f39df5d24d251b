"""Laws of the recurrence: nothing is lost (V1, V2, V4), closed forms (V6, V7), better hardware is
never slower (V8), Little's law (V12), the array against an output-stationary one (V17)."""

import math
import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from lumigraph.hardware import banks
from lumigraph.hardware.cluster import ClusterSpec
from lumigraph.hardware.cycle.model import deal, follow_compiled, simulate_cycles
from lumigraph.hardware.cycle.timing import TimingShape, simulate_reference
from lumigraph.hardware.synthetic import pattern
from lumigraph.hardware.workloads import APPLICATIONS, ENCODINGS, workload

pytest.importorskip("numba")
NONE = np.zeros((1, 1), np.uint8)


def follow(service, shape, **options):
    return follow_compiled(
        service.astype(np.uint16), NONE, NONE, misses=False, shape=shape, **options
    )


def case(application="nsdf", encoding="hash", *, samples=600, **settings):
    settings = {key.replace("__", "."): value for key, value in settings.items()}
    cluster = ClusterSpec().with_settings({"capacity": "ideal", "nfp.count": 3, **settings})
    work = workload(application, encoding)
    points = pattern("walk", samples, dimensions=work.encoding.dimensions, seed=1)
    return points, np.arange(samples) // 7, work, cluster


VARIANTS = [
    {},
    {"nfp.encoding.bank_map": "low_bits", "nfp.mlp.lanes": 2, "nfp.deal": "cyclic"},
    {"nfp.mlp.mode": "layer_pipelined", "nfp.encoding.bank_map": "xor_fold"},
    {"nfp.mlp.mode": "layer_pipelined", "nfp.mlp.input_fifo": 0, "nfp.mlp.lanes": 2},
    {"capacity": "honest", "nfp.encoding.sram_kib": 64, "nfp.encoding.feature_bits": 16},
    {"capacity": "honest", "nfp.encoding.sram_kib": 64, "nfp.encoding.replacement": "pinned"},
    {"nfp.encoding.reuse_last_cell": True, "nfp.encoding.bank_map": "prime"},
    {"nfp.encoding.engines": 8, "nfp.encoding.passes": 2, "nfp.encoding.bank_map": "low_bits"},
]


@pytest.mark.parametrize("settings", VARIANTS)
@pytest.mark.parametrize("names", [("nerf", "hash"), ("gia", "dense"), ("nvr", "lowres")])
def test_nothing_is_lost_and_both_back_ends_agree(settings, names):
    points, rays, work, cluster = case(*names)
    cluster = cluster.with_settings(settings)
    result = simulate_cycles(points, rays, work, cluster)
    reference = simulate_cycles(points, rays, work, cluster, backend="numpy")
    for compiled, plain in zip(result.timings, reference.timings, strict=True):
        assert compiled.same_as(plain)
    for name in ("accesses", "lines_from_l2", "lines_from_dram"):
        assert np.array_equal(getattr(result, name), getattr(reference, name)), name
    lanes, group = cluster.nfp.mlp.lanes, result.shape.group
    for t in result.timings:
        parts = (t.busy, t.conflict, t.miss, t.back_pressure, t.starve, t.idle)
        assert all((part >= 0).all() for part in parts)
        assert (sum(parts) == t.cycles * group).all()
        array = (t.array_busy, t.array_overhead, t.array_starve, t.array_blocked, t.array_idle)
        assert min(array) >= 0 and sum(array) == t.cycles * lanes
        assert t.samples == t.joined == t.inferred == t.written
    assert sum(result.samples) == len(points)
    moved = result.moved_bytes()
    assert moved["line_bytes"] == result.lines_from_l2.sum() * 32
    assert moved["dram_bytes"] <= moved["line_bytes"]
    assert moved["input_bytes"] == len(points) * work.input_bytes
    tiles = sum(-(-i // 64) * -(-o // 64) for i, o in work.layers)
    assert result.macs_issued == len(points) * tiles * 64 * 64
    assert result.macs_useful == len(points) * sum(i * o for i, o in work.layers)


@pytest.mark.parametrize("names", [(a, e) for a in APPLICATIONS for e in ENCODINGS])
def test_multipliers_in_use(names):
    work = workload(*names)
    tiles = sum(-(-i // 64) * -(-o // 64) for i, o in work.layers)
    if names == ("nsdf", "hash"):
        assert work.macs / (tiles * 4096) == pytest.approx(0.583, abs=1e-3)
    assert work.macs <= tiles * 4096


FIFO_TABLE = {
    1: (2.807, 2.023, 1.773, 1.691, 1.658, 1.641),
    2: (2.807, 2.084, 2.001, 2.000, 2.000, 2.000),
    3: (3.403, 3.000, 3.000, 3.000, 3.000, 3.000),
    5: (5.000, 5.000, 5.000, 5.000, 5.000, 5.000),
}


@pytest.mark.parametrize("interval", FIFO_TABLE)
def test_fifo_table_v6(interval):
    law = banks.hashed_service(3, 8)
    rng = np.random.default_rng(11)
    service = rng.choice(list(law), p=[float(v) for v in law.values()], size=(20_000, 16))
    for depth, wanted in zip((1, 2, 4, 8, 16, 64), FIFO_TABLE[interval], strict=True):
        shape = TimingShape(depth=depth, interval=interval)
        assert follow(service, shape).cycles / 20_000 == pytest.approx(wanted, rel=0.01)


def test_depth_one_is_lock_step_exactly():
    rng = np.random.default_rng(2)
    service = rng.integers(1, 5, (500, 16))
    for interval in (1, 3):
        t = follow(service, TimingShape(depth=1, interval=interval), keep=True)
        slowest = service.max(1)
        joins = t.events["join"]
        assert joins[0] == slowest[0]
        assert (np.diff(joins) == np.maximum(slowest[1:], interval)).all()


def test_closed_forms_v7():
    n = 256
    points = pattern("repeat", n)
    work = workload("nsdf")
    cluster = ClusterSpec().with_settings({"capacity": "ideal", "nfp.count": 1})
    result = simulate_cycles(points, np.arange(n), work, cluster)
    mlp, port = cluster.nfp.mlp, cluster.nfp.l2_port
    batch = 3 * (mlp.batch + mlp.pass_latency)
    first = port.latency + 1 + cluster.nfp.encoding.latency.total + mlp.batch - 1 + 1
    # four batches, the last result leaves with the burst of its batch
    burst = math.ceil(mlp.batch * work.output_bytes / port.bytes_per_cycle)
    assert result.frame_cycles == first + 4 * batch + burst
    pipelined = cluster.with_settings({"nfp.mlp.mode": "layer_pipelined"})
    times = simulate_cycles(points, np.arange(n), work, pipelined, keep_events=True).timings[0]
    assert (np.diff(times.events["issue"]) == 1).all()


def test_a_lone_level_takes_n_plus_latency_minus_one():
    service = np.ones((100, 1), np.int64)
    shape = TimingShape(latency=13, network_latency=7)
    latency_of_one = follow(service[:1], shape).cycles
    assert latency_of_one == 1 + 13 + 7
    assert follow(service, shape).cycles == 100 + latency_of_one - 1


def test_stride_collides_v7():
    points = pattern("stride", 512, stride=8)
    lowres = workload("nsdf", "lowres")
    settings = {"nfp.encoding.bank_map": "low_bits", "nfp.count": 1, "capacity": "ideal"}
    settings |= {"nfp.encoding.word_bytes": 8, "nfp.encoding.corner_merge": False}
    cluster = ClusterSpec().with_settings(settings)
    result = simulate_cycles(points, np.arange(512), lowres, cluster)
    t = result.timings[0]
    assert ((t.busy + t.conflict) == 4 * 512).all()  # rows of 128: four corners in one bank
    one_bank = cluster.with_settings({"nfp.encoding.banks": 1})
    t = simulate_cycles(points, np.arange(512), lowres, one_bank).timings[0]
    assert ((t.busy + t.conflict) == 8 * 512).all()


def test_latency_shifts_everything():
    rng = random.Random(5)
    service = np.array([[rng.randint(1, 4) for _ in range(3)] for _ in range(60)])
    for serial in (False, True):
        shape = TimingShape(serial=serial, batch=8, input_fifo=16, depth=2, tiles=(1, 2))
        base = simulate_reference(service, shape).cycles
        assert simulate_reference(service, replace(shape, latency=17)).cycles == base + 17


BETTER = [
    ("nfp.encoding.banks", 2),
    ("nfp.encoding.ports_per_bank", 2),
    ("nfp.encoding.fifo_depth", 2),
    ("nfp.mlp.lanes", 2),
    ("nfp.mlp.input_fifo", 2),
    ("nfp.mlp.output_fifo", 2),
    ("nfp.l2_port.bytes_per_cycle", 2),
    ("nfp.count", 2),
]


def test_better_hardware_is_never_slower_v8():
    rng = random.Random(9)
    for _ in range(200):
        names = (rng.choice(APPLICATIONS), rng.choice(ENCODINGS))
        points, rays, work, cluster = case(*names, samples=rng.choice([64, 300]))
        settings = {
            "nfp.count": rng.choice([1, 2]),
            "nfp.encoding.banks": rng.choice([2, 4, 8, 16]),
            "nfp.encoding.bank_map": rng.choice(["low_bits", "xor_fold"]),
            "nfp.encoding.fifo_depth": rng.choice([1, 2, 4]),
            "nfp.encoding.ports_per_bank": rng.choice([1, 2]),
            "nfp.mlp.mode": rng.choice(["layer_serial", "layer_pipelined"]),
            "nfp.mlp.batch": rng.choice([16, 64]),
            "nfp.l2_port.bytes_per_cycle": rng.choice([2, 8, 32]),
        }
        worse = cluster.with_settings(settings)
        key, factor = rng.choice(BETTER)
        now = worse
        for part in key.split("."):
            now = getattr(now, part)
        better = worse.with_settings({key: now * factor})
        slow = simulate_cycles(points, rays, work, worse).frame_cycles
        fast = simulate_cycles(points, rays, work, better).frame_cycles
        assert fast <= slow, (settings, key)


def test_littles_law_v12():
    """Samples in a FIFO, averaged over time, are throughput times mean wait."""
    rng = np.random.default_rng(6)
    service = rng.integers(1, 4, (4000, 4))
    t = follow(service, TimingShape(depth=8, interval=2), keep=True)
    span = int(t.events["join"][-1])
    for e in range(4):
        end, join = t.events["end"][:, e], t.events["join"]
        clock = np.zeros(span + 1, np.int64)
        np.add.at(clock, end, 1)
        np.add.at(clock, join, -1)
        occupancy = np.cumsum(clock)[:-1].mean()  # counted cycle by cycle
        assert occupancy == pytest.approx(len(join) / span * (join - end).mean(), rel=1e-3)
        assert np.cumsum(clock).max() <= 8


def test_array_against_output_stationary_v17():
    """A 64 x 64 array that keeps outputs in place takes ceil(samples / 64) ceil(out / 64) tiles of
    `in` cycles and drains at the end; ours streams samples past held weights."""
    for samples in (4096, 16384):
        work = workload("nsdf")
        shape = TimingShape(serial=True, batch=512, tiles=(1, 1, 1), overhead=10, input_fifo=1024)
        ours = samples / 512 * shape.batch_cycles(512)
        # outputs padded to the array, as Timeloop counts: a layer of 64 outputs each
        tiles = [math.ceil(samples / 64) * math.ceil(o / 64) * 64 for _, o in work.layers]
        assert ours == pytest.approx(sum(tiles) + 64, rel=0.07)


def test_dealing_keeps_rays_whole():
    rng = np.random.default_rng(0)
    rays = np.repeat(rng.permutation(50), rng.integers(1, 9, 50))
    mixed = rng.permutation(rays)
    for stream in (np.sort(rays), rays, mixed):
        for how in ("block", "cyclic"):
            order, bounds = deal(stream, 4, how)
            assert sorted(order) == list(range(len(stream)))
            owners = [set(stream[order[a:b]]) for a, b in pairwise(bounds)]
            assert sum(map(len, owners)) == 50
            for a, b in pairwise(bounds):
                assert (np.diff(order[a:b]) > 0).all()  # the order of issue is kept
    sizes = np.diff(deal(np.arange(1000), 4, "block")[1])
    assert sizes.tolist() == [250] * 4
    assert np.diff(deal(np.zeros(0, int), 4, "block")[1]).tolist() == [0] * 4
