"""Clusters from files: what is not known or not possible is named."""

import dataclasses

import numpy as np
import pytest

from lumigraph.core.errors import ConfigError
from lumigraph.hardware.cluster import ClusterSpec, preset_names
from lumigraph.hardware.cycle.model import simulate_cycles
from lumigraph.hardware.settings import settings_of
from lumigraph.hardware.workloads import workload


@pytest.mark.parametrize("name", preset_names())
def test_presets_survive_a_round_trip(name, tmp_path):
    cluster = ClusterSpec.load(name)
    assert cluster.name == name
    cluster.save(tmp_path / "c.yaml")
    assert ClusterSpec.load(tmp_path / "c.yaml") == cluster


def test_every_setting_has_its_provenance():
    for key, row in settings_of(ClusterSpec()).items():
        assert row["tag"] in ("paper", "paper-2nd", "public", "assumed"), key


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nfp": {"encoding": {"bnaks": 8}}}, "unknown key 'nfp.encoding.bnaks'; did you mean"),
        ({"nfp": {"count": 0}}, "nfp.count = 0; must be 1 to 4096"),
        ({"nfp": {"count": True}}, "nfp.count = True; must be int"),
        ({"nfp": {"encoding": {"fifo_depth": 0}}}, "fifo_depth = 0; must be 1 to 1024"),
        ({"nfp": {"encoding": {"banks": 12}}}, "nfp.encoding.banks = 12: must be a power of two"),
        ({"nfp": {"encoding": {"bank_map": "xor"}}}, "use one of low_bits, xor_fold, parity"),
        ({"nfp": {"encoding": {"feature_bits": 12}}}, "use one of 8, 16, 32"),
        ({"nfp": {"mlp": {"input_fifo": 16}}}, "must be 64 \\(nfp.mlp.batch\\) or more"),
        ({"nfp": 3}, "nfp must be a mapping"),
        ({"schedule": {"batches": "some"}}, "must be int or auto"),
        ({"capacity": "big"}, "use one of ideal, honest"),
        ({"schema": "x/2"}, "schema 'x/2' is not known"),
        ({"base": "ngpc-7"}, "preset 'ngpc-7': use one of"),
        ({"nfp": {"clock_ghz": float("nan")}}, "clock_ghz = nan"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        ClusterSpec.from_mapping(settings)


def test_files(tmp_path):
    with pytest.raises(ConfigError, match="neither a file nor a preset; presets are edge-1w"):
        ClusterSpec.load("nowhere.yaml")
    file = tmp_path / "c.yaml"
    file.write_text("nfp: [\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: not readable as YAML"):
        ClusterSpec.load(file)
    file.write_text("base: ngpc-64\nname: wide\nnfp: {encoding: {banks: 16}}\n")
    cluster = ClusterSpec.load(file)
    assert (cluster.nfp.count, cluster.nfp.encoding.banks, cluster.name) == (64, 16, "wide")
    assert cluster.with_settings({"nfp.encoding.banks": 8, "name": "ngpc-64"}) == ClusterSpec.load(
        "ngpc-64"
    )


def test_more_levels_than_engines():
    points = np.full((4, 3), 0.5, np.float32)
    rays = np.arange(4)
    small = ClusterSpec().with_settings({"nfp.encoding.engines": 8})
    with pytest.raises(ConfigError, match="16 levels, more than nfp.encoding.engines x passes"):
        simulate_cycles(points, rays, workload("nerf"), small)
    served = small.with_settings({"nfp.encoding.passes": 2, "nfp.mlp.mode": "layer_pipelined"})
    result = simulate_cycles(points, rays, workload("nerf"), served, backend="numpy")
    # both levels of an engine, one cycle each
    assert result.timings[0].busy.tolist() == [2 * samples for samples in [result.samples[0]] * 8]
    few = served.with_settings({"nfp.mlp.stages": 3})
    with pytest.raises(ConfigError, match="5 layers, and layer_pipelined needs an array for each"):
        simulate_cycles(points, rays, workload("nerf"), few)
    parity = ClusterSpec().with_settings({"nfp.encoding.banks": 4})
    with pytest.raises(ConfigError, match="parity needs one for each of the 8 corners"):
        simulate_cycles(points, rays, workload("nerf"), parity)


def test_specs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ClusterSpec().capacity = "ideal"  # type: ignore[misc]
