"""The three encodings have the sizes that "Hardware Acceleration of Neural Graphics" lists."""

import pytest

from lumigraph.core.errors import ConfigError
from lumigraph.training import train_config
from lumigraph.training.config import CONFIGS, FittingConfig
from lumigraph.training.fitting.fit import fitted_layout

DENSE = [16, 23, 32, 45, 63, 88, 124, 173]
FITTED = [method for method, kind in CONFIGS.items() if issubclass(kind, FittingConfig)]


def layout(method, encoding, *, dimensions, finest):
    config = train_config(method, "full", encoding=encoding)
    return fitted_layout(config, dimensions=dimensions, finest=finest)


def test_hashgrid_of_a_picture():
    grid = layout("image", "hashgrid", dimensions=2, finest=512)
    listed = [16, 21, 26, 32, 41, 51, 64, 81, 102, 128, 162, 204, 256, 323, 407, 512]
    assert list(grid.resolutions) == listed and grid.features == 2
    assert grid.entries == 709_696 and grid.log2_table_size == 24


def test_dense_grids_of_a_picture():
    grid = layout("image", "densegrid", dimensions=2, finest=512)
    assert list(grid.resolutions) == DENSE and grid.dense and grid.entries == 60_880
    low = layout("image", "low_res_densegrid", dimensions=2, finest=512)
    assert list(low.resolutions) == [128, 128] and low.features == 8 and low.entries == 32_768


@pytest.mark.parametrize("method", FITTED)
def test_networks_are_those_of_the_paper(method):
    config = train_config(method, "full")
    assert (config.hidden_width, config.hidden_layers) == (64, 2)


@pytest.mark.parametrize("method", FITTED)
def test_settings_of_photographs_are_refused(method):
    for name, value in (("exposure", True), ("pose_refinement", True), ("split_every", 8)):
        with pytest.raises(ConfigError, match=f"{name} = .*sees no photographs; leave it out"):
            train_config(method, **{name: value})
    for name, value in (("features", 3), ("hidden_width", 24), ("encoding", "dense")):
        with pytest.raises(ConfigError, match=name):
            train_config(method, **{name: value})
    with pytest.raises(ConfigError, match="must not be below"):
        train_config(method, base_resolution=64, max_resolution=32)
    with pytest.raises(ConfigError, match="set both"):
        train_config(method, max_resolution=8).grid_shape(512)
