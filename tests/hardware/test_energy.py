"""Energy and area: sums of parts, closed form of a sample, and no number without its source."""

import json
from importlib import resources

import pytest

from lumigraph.core.errors import ConfigError
from lumigraph.hardware.claims import published
from lumigraph.hardware.cluster import ClusterSpec, preset_names
from lumigraph.hardware.energy import (
    Technology,
    actions_of_sample,
    area_mm2,
    energy_joules,
    technology_names,
)
from lumigraph.hardware.workloads import workload


def table():
    data = resources.files("lumigraph.hardware").joinpath("data", "technology-7nm.json")
    return json.loads(data.read_text())


def test_shipped_tables_name_their_sources():
    assert technology_names() == ["45nm", "7nm"]
    for name in technology_names():
        for entry, source, accuracy, tag in Technology.load(name).sources():
            assert source and accuracy and tag in ("public", "assumed"), entry


@pytest.mark.parametrize("missing", ["source", "accuracy", "tag"])
def test_an_entry_without_a_source_is_refused(missing):
    value = table()
    del value["energy_pj"]["int8_mul"][missing]
    with pytest.raises(ConfigError, match=f"energy_pj.int8_mul has no {missing}"):
        Technology.from_mapping(value, source="mine")


def test_unknown_components_are_errors():
    cluster = ClusterSpec().with_settings({"memory.dram.kind": "core"})
    work = workload("nsdf")
    with pytest.raises(ConfigError, match="has no 'core' in dram_pj_64bit; it knows gddr6x"):
        energy_joules(actions_of_sample(work), work, cluster)
    with pytest.raises(ConfigError, match="neither a file nor one of 45nm, 7nm"):
        Technology.load("3nm")
    tiny = ClusterSpec().with_settings({"nfp.encoding.sram_kib": 4, "nfp.encoding.banks": 64})
    with pytest.raises(ConfigError, match="beyond its table"):
        energy_joules(actions_of_sample(work), work, tiny)


def test_closed_form_of_a_sample():
    """E = MACs + L 2^D reads + hashing + positions + interpolation + port, in picojoules."""
    work = workload("nsdf")
    cluster = ClusterSpec.load("paper-ideal")
    parts = energy_joules(actions_of_sample(work), work, cluster)
    bank = Technology.load("7nm").sram_read_joules(128 * 1024, 16)
    wanted = 7168 * 0.1 + 128 * bank * 1e12 + 11 * 8 * 2 * 1.48 + 48 * 1.31
    wanted += 16 * 8 * 2 * 0.1 + 8 * 3.5
    assert sum(parts.values()) * 1e12 == pytest.approx(wanted, rel=1e-6)


def test_sample_energy_is_near_the_published_power():
    """1.206 W at about 0.59 samples/ns are 2.0 nJ: within a factor of 2."""
    base = published()
    watts = base.power_percent / 100 * base.gpu_watts
    work = workload("nsdf")
    found = sum(
        energy_joules(actions_of_sample(work), work, ClusterSpec.load("paper-ideal")).values()
    )
    assert 0.5 < found / (watts / 0.59e9) < 2


def test_memory_energies_between_sizes():
    technology = Technology.load("7nm")
    assert technology.sram_read_joules(8 * 1024, 64) == pytest.approx(7.5e-12)
    assert technology.sram_read_joules(1024 * 1024, 64) == pytest.approx(14e-12)
    sizes = [technology.sram_read_joules(k * 1024, 64) for k in (8, 16, 32, 64, 512, 1024, 2048)]
    assert sizes == sorted(sizes)
    assert technology.sram_read_joules(8 * 1024, 16) == pytest.approx(7.5e-12 * 0.55)


def test_area_of_a_processor_a9():
    base = published()
    stated = base.area_percent / 100 * base.die_mm2
    assert stated == pytest.approx(3.55, abs=0.01)
    parts = area_mm2(ClusterSpec.load("paper-ideal"))
    assert parts["table memories"] == pytest.approx(6.04 * 1.1, rel=0.01)
    assert 0.5 < sum(parts.values()) / stated < 2.5
    for n, area, power in ((8, 4.52, 2.75), (64, 36.18, 22.06)):
        assert n * base.area_percent == pytest.approx(area, rel=0.005)
        assert n * base.power_percent == pytest.approx(power, rel=0.005)


@pytest.mark.parametrize("name", preset_names())
def test_presets_have_all_their_costs(name):
    cluster, work = ClusterSpec.load(name), workload("nerf", "dense")
    actions = actions_of_sample(work, line_bytes=32.0, dram_bytes=32.0)
    parts = energy_joules(actions, work, cluster)
    assert all(value > 0 for key, value in parts.items() if key != "hashing")
    assert sum(area_mm2(cluster).values()) > 1
