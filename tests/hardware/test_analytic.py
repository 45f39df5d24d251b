"""V13 and V14: the closed form against the cycle model, over applications, encodings and sizes."""

import numpy as np
import pytest

from lumigraph.hardware import banks
from lumigraph.hardware.analytic import FIFO_EFFECT, evaluate, fifo_effect, profile
from lumigraph.hardware.cluster import ClusterSpec
from lumigraph.hardware.reports.studies import fifo_intervals
from lumigraph.hardware.simulation import frame_of, measure_rate, simulate
from lumigraph.hardware.synthetic import synthetic_trace
from lumigraph.hardware.workloads import APPLICATIONS, ENCODINGS

pytest.importorskip("numba")


def errors(cluster, counts, tiles):
    found = {}
    for name in APPLICATIONS:
        for kind in ENCODINGS:
            trace = synthetic_trace(name, kind, tiles=tiles)
            many = cluster.with_settings({"nfp.count": max(counts)})
            rates = [measure_rate(trace, many, fidelity=f) for f in ("cycle", "analytic")]
            for n in counts:
                variant = cluster.with_settings({"nfp.count": n})
                slow, fast = (frame_of(trace, rate, variant) for rate in rates)
                found[name, kind, n] = fast.cluster_seconds / slow.cluster_seconds - 1
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"nfp.mlp.mode": "layer_pipelined", "nfp.encoding.bank_map": "low_bits"},
    ],
)
def test_ideal_memories_v13(settings):
    cluster = ClusterSpec.load("paper-ideal").with_settings(settings)
    found = np.abs(list(errors(cluster, (8, 16, 32, 64), 8).values()))
    assert found.mean() <= 0.03 and found.max() <= 0.08


@pytest.mark.slow
def test_honest_memories_v14():
    found = np.abs(list(errors(ClusterSpec.load("paper-honest"), (8, 64), 48).values()))
    assert found.mean() <= 0.10 and found.max() <= 0.25


def test_honest_memories_quickly():
    cluster = ClusterSpec.load("paper-honest")
    trace = synthetic_trace("nsdf", "lowres", tiles=32)
    slow, fast = simulate(trace, cluster), simulate(trace, cluster, fidelity="analytic")
    assert slow.rate.bottleneck == "misses"
    assert fast.cluster_seconds == pytest.approx(slow.cluster_seconds, rel=0.25)
    assert fast.rate.line_bytes == pytest.approx(slow.rate.line_bytes)  # counted, not modelled


def test_effect_of_fifos_is_the_measured_one():
    law = banks.hashed_service(3, 8)
    mean = float(banks.mean(law))
    lock = float(banks.mean_of_slowest(law, 16))
    measured = dict(zip((1, 2, 4, 8, 16), fifo_intervals()[1], strict=False))
    for depth, share in FIFO_EFFECT.items():
        assert mean + (lock - mean) * share == pytest.approx(measured[depth], rel=0.01)
    assert fifo_effect(64) < fifo_effect(16) < fifo_effect(11) < fifo_effect(8)


def test_what_binds_is_named():
    trace = synthetic_trace("gia", tiles=8)
    cluster = ClusterSpec.load("paper-ideal")
    known = profile(trace, cluster)
    assert evaluate(known, trace.workload, cluster).bottleneck == "array"
    narrow = cluster.with_settings({"nfp.l2_port.bytes_per_cycle": 1})
    assert evaluate(known, trace.workload, narrow).bottleneck == "port"
    many = cluster.with_settings({"nfp.mlp.lanes": 32})
    assert evaluate(known, trace.workload, many).bottleneck == "encoding"
    utilization = evaluate(known, trace.workload, cluster).mac_utilization
    assert utilization == pytest.approx(7168 / (4096 * 2 * 126 / 64), rel=1e-6)
