"""V5: exact mean service times of banks, enumerated and simulated."""

from fractions import Fraction as F

import numpy as np
import pytest

from lumigraph.hardware import banks
from lumigraph.hardware.cycle.addresses import Banking, accesses_and_service
from lumigraph.hardware.synthetic import pattern
from lumigraph.hardware.workloads import Encoding

BANKS = (2, 4, 8, 16, 32)


def test_hashed_in_three_dimensions():
    found = [banks.mean(banks.hashed_service(3, b)) for b in BANKS]
    assert found == [4, F(5, 2), F(13, 8), F(45, 32), F(133, 128)]
    assert banks.hashed_service(3, 8) == {1: F(224, 512), 2: F(272, 512), 4: F(16, 512)}
    assert banks.mean(banks.hashed_service(3, 1)) == 8


def test_hashed_in_two_dimensions():
    found = [banks.mean(banks.hashed_service(2, b)) for b in (1, 4, 8, 16)]
    assert found == [4, F(3, 2), F(11, 8), F(43, 32)]


def test_dense_powers_of_two_collide():
    assert {banks.mean(banks.dense_service(3, b, 128)) for b in BANKS} == {F(4)}
    assert banks.mean(banks.dense_service(3, 8, 129)) < 4


def test_parity_never_collides():
    assert {banks.mean(banks.parity_service(3, b)) for b in (8, 16, 32)} == {F(1)}
    assert banks.mean(banks.parity_service(4, 16)) == 1  # time as a fourth dimension
    with pytest.raises(ValueError, match="needs 8 banks"):
        banks.parity_service(3, 4)


def test_random_accesses():
    found = [float(banks.mean(banks.random_service(8, b))) for b in BANKS]
    assert found == pytest.approx([5.0938, 3.5381, 2.5972, 2.0629, 1.6646], abs=5e-5)


def test_slowest_of_sixteen_levels():
    slowest = banks.mean_of_slowest(banks.hashed_service(3, 8), 16)
    assert float(slowest) == pytest.approx(2.7966, abs=5e-5)


def level(kind, dimensions, resolution):
    return Encoding(kind, dimensions, 1, 2, resolution, 1.0, 19)


def simulated(encoding, mapping, count, samples=40_000):
    points = pattern("uniform", samples, dimensions=encoding.dimensions, seed=4)
    banking = Banking(count, mapping, 1, 1, False, False)
    _, service = accesses_and_service(points, encoding, 0, banking=banking, group=1)
    return service.mean()


@pytest.mark.parametrize("count", BANKS)
def test_simulated_hash(count):
    wanted = float(banks.mean(banks.hashed_service(3, count)))
    assert simulated(level("hash", 3, 2048), "low_bits", count) == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize("count", (4, 8, 16))
def test_simulated_hash_in_two_dimensions(count):
    wanted = float(banks.mean(banks.hashed_service(2, count)))
    found = simulated(level("hash", 2, 4096), "low_bits", count)
    assert found == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize("count", BANKS)
def test_simulated_dense(count):
    assert simulated(level("dense", 3, 128), "low_bits", count) == 4
    if count >= 8:
        assert simulated(level("dense", 3, 128), "parity", count) == 1
        assert simulated(level("hash", 3, 2048), "parity", count) == 1


def test_other_maps_remove_the_power_of_two():
    dense = level("dense", 3, 128)
    assert simulated(dense, "prime", 7) < 3 < simulated(dense, "low_bits", 8)
    assert simulated(dense, "xor_fold", 8) < 4


def test_ports_and_beats():
    points = pattern("uniform", 500)
    wide = Encoding("dense", 3, 1, 8, 128, 1.0, 28)
    one, two = (Banking(8, "low_bits", ports, 4, True, False) for ports in (1, 2))
    _, service = accesses_and_service(points, wide, 0, banking=one, group=1)
    _, halved = accesses_and_service(points, wide, 0, banking=two, group=1)
    assert set(service) == {16} and set(halved) == {8}


def test_reuse_of_the_last_cell():
    points = np.repeat(pattern("uniform", 50), 4, axis=0)
    reuse = Banking(8, "low_bits", 1, 1, True, True)
    reads, service = accesses_and_service(points, level("hash", 3, 64), 0, banking=reuse, group=1)
    assert reads.reshape(50, 4)[:, 1:].sum() == 0 and (service.reshape(50, 4)[:, 1:] == 1).all()
    reads, _ = accesses_and_service(points, level("hash", 3, 64), 0, banking=reuse, group=4)
    assert (reads[4:] > 0).sum() > 150  # four inputs in parallel: the one before is another cell
