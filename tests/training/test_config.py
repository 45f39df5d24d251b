"""Settings by method: classes, presets, ranges, names of another method, schedules."""

import dataclasses
import subprocess
import sys

import pytest

from lumigraph.core.errors import ConfigError
from lumigraph.training import (
    PRESETS,
    GaussiansConfig,
    NerfConfig,
    RunConfig,
    config_from_dict,
    train_config,
)
from lumigraph.training.config import CONFIGS, methods_with
from lumigraph.training.config_run import has_type, setting_types


@pytest.mark.parametrize(("method", "kind"), [("nerf", NerfConfig), ("gaussians", GaussiansConfig)])
@pytest.mark.parametrize("size", ["tiny", "small", "full"])
def test_presets_give_the_class_of_their_method(method, kind, size):
    config = train_config(method, size, seconds=2.0)
    assert type(config) is kind and (config.method, config.preset) == (method, size)
    assert config.planned_steps is None
    assert config_from_dict(config.to_dict()) == config


def test_every_method_has_every_size():
    sizes = {size for _, size in PRESETS}
    assert set(PRESETS) == {(method, size) for method in CONFIGS for size in sizes}


def test_defaults_of_the_classes_are_a_preset_each():
    assert NerfConfig() == train_config("nerf", "tiny")
    assert GaussiansConfig() == train_config("gaussians", "full")


@pytest.mark.parametrize("kind", CONFIGS.values())
def test_every_number_has_a_range_and_every_range_a_setting(kind):
    settings = setting_types(kind)
    assert set(kind.RANGES) <= set(settings)
    numbers = {n for n, hint in settings.items() if has_type(1, hint) and hint is not bool}
    assert numbers - set(kind.RANGES) <= {"seed", "features"}  # features names its four values
    assert kind.MAIN_RATE in settings


@pytest.mark.parametrize("name", sorted(set(GaussiansConfig.RANGES) - set(RunConfig.RANGES)))
def test_ends_of_the_ranges_of_gaussians(name):
    usual = GaussiansConfig()
    whole = has_type(1, setting_types(GaussiansConfig)[name]) and not has_type(
        0.5, setting_types(GaussiansConfig)[name]
    )
    low, high = (int(x) if whole else x for x in GaussiansConfig.RANGES[name])
    for good in (low, high):
        assert getattr(dataclasses.replace(usual, **{name: good}), name) == good
    for bad in (low - 1, high + 1):
        with pytest.raises(ConfigError, match=f"^{name} = .*: must lie in"):
            dataclasses.replace(usual, **{name: bad})


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("gaussians", {"max_gausians": 5}, "unknown setting 'max_gausians'; remove it"),
        (
            "gaussians",
            {"levels": 4},
            "'levels' is a setting of method nerf and neus .*, not of gaussians",
        ),
        ("nerf", {"strategy": "mcmc"}, "'strategy' is a setting of method gaussians and"),
        ("gaussians", {"strategy": "grow"}, "strategy = 'grow': unknown, use one of default, mcmc"),
        ("gaussians", {"max_gaussians": 1e5}, "max_gaussians = 100000.0 has the wrong type"),
        ("gaussians", {"antialiased": 1}, "antialiased = 1 has the wrong type"),
        ("gaussians", {"harmonics_degree": 4}, r"harmonics_degree = 4: must lie in \[0, 3\]"),
        (
            "gaussians",
            {"refine_stop": 1.5},
            "refine_stop = 1.5: give a fraction .* whole step",
        ),
        ("gaussians", {"means_rate": float("nan")}, "means_rate = nan: must lie in"),
    ],
)
def test_bad_settings_are_named(method, change, message):
    with pytest.raises(ConfigError, match=message):
        train_config(method, "tiny", **change)


@pytest.mark.parametrize("method", ["splats", 3, ["nerf"], None])
def test_unknown_methods_of_a_file(method):
    with pytest.raises(ConfigError, match=r"x.yaml: method = .*: unknown, use one of nerf, gauss"):
        config_from_dict({"method": method}, "x.yaml")


def test_files_without_a_method_are_of_the_first():
    assert config_from_dict({"steps": 3}) == NerfConfig(steps=3)


def test_methods_with_a_setting():
    assert methods_with("seed") == list(CONFIGS)
    assert methods_with("noise_rate") == ["gaussians", "gaussians4d"]
    assert methods_with("nothing") == []


def test_what_is_left_to_the_strategy():
    mcmc, usual = GaussiansConfig(), GaussiansConfig(strategy="default")
    assert (mcmc.opacity_weight, mcmc.scale_weight) == (0.01, 0.01)
    assert (usual.opacity_weight, usual.scale_weight) == (0.0, 0.0)
    assert GaussiansConfig(opacity_regularization=0.0, scale_regularization=0.5).scale_weight == 0.5
    assert (mcmc.refine_stop_step(30_000), usual.refine_stop_step(30_000)) == (25_000, 15_000)
    assert usual.refine_stop_step(4_000) == 2_000
    assert GaussiansConfig(refine_stop=0.25).refine_stop_step(1_000) == 250
    assert GaussiansConfig(refine_stop=700).refine_stop_step(1_000) == 700
    assert usual.grow_threshold == 2e-4
    assert GaussiansConfig(absgrad=True).grow_threshold == 8e-4
    assert GaussiansConfig(absgrad=True, grow_gradient=1e-3).grow_threshold == 1e-3


def test_positions_slow_down_over_the_run():
    config = GaussiansConfig()
    factors = [config.learning_rate_factor(0, fraction) for fraction in (0.0, 0.5, 1.0)]
    assert factors == pytest.approx([1.0, 0.1, 0.01]) and config.main_rate == 1.6e-4


def test_settings_need_no_torch():
    code = (
        "import sys; from lumigraph.training import train_config, GaussiansConfig; "
        "train_config('gaussians', 'tiny'); import lumigraph.training.registry; "
        "raise SystemExit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
