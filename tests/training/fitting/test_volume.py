"""Method `volume`: training, exact resume, scores, a grid back."""

import dataclasses

import numpy as np
import pytest
import torch

import lumigraph as lg
from lumigraph.core.errors import ConfigError, DataError, InputError
from lumigraph.datasets.targets import load_medium
from lumigraph.training import evaluate, train, train_config
from lumigraph.training.fitting.fit import fitted_layout


@pytest.fixture(autouse=True)
def quick_scores(monkeypatch):
    from lumigraph.training.fitting import volume

    monkeypatch.setattr(volume, "SCORED_POINTS", 2**14)
    monkeypatch.setattr(volume, "SHOWN_SIZE", (24, 18))
    monkeypatch.setattr(volume, "SHOWN_VIEWS", (0,))


@pytest.fixture
def puff(tmp_path):
    line = (np.arange(20) + 0.5) / 20 - 0.5
    x, y, z = np.meshgrid(line, line, line, indexing="ij")
    density = np.clip(1 - 2.5 * np.sqrt(x**2 + y**2 + z**2), 0, 1)
    albedo = np.stack([0.5 + x, 0.5 + y, np.full_like(x, 0.7)], axis=-1)
    np.savez(tmp_path / "puff.npz", density=density, albedo=albedo)
    return tmp_path / "puff.npz"


@pytest.fixture
def config(small):
    sizes = {"max_resolution": 32, "log2_table_size": 12, "batch_samples": 2048}
    return train_config("volume", steps=150, density_scale=8.0, **sizes, **small)


def test_the_hashgrid_has_the_sizes_of_the_paper():
    grid = fitted_layout(train_config("volume", "full"), dimensions=3, finest=613)
    listed = [16, 21, 27, 34, 43, 54, 69, 88, 112, 143, 182, 232, 296, 377, 481, 613]
    assert all(abs(a - b) <= 1 for a, b in zip(grid.resolutions, listed, strict=True))
    assert grid.growth == pytest.approx(1.275, abs=1e-3)


def test_a_puff_is_learnt_scored_and_written(puff, config, tmp_path):
    run = train(puff, config, out=tmp_path / "run")
    scores = evaluate(run)
    names = ["psnr", "density_psnr", "albedo_psnr"]
    assert list(scores) == ["run", "protocol", *names, "seconds"]
    assert scores["density_psnr"] > 27 and scores["albedo_psnr"] > 20 and scores["psnr"] > 30
    report = lg.export.medium(run, out=tmp_path / "out.npz", cells=20)
    assert 6 < report.peak <= 8
    again, truth = load_medium(tmp_path / "out.npz").target, load_medium(puff).target
    assert float((again.density / 8 - truth.density).abs().mean()) < 0.02
    with pytest.raises(InputError, match="exists already"):
        lg.export.medium(run, out=tmp_path / "out.npz")
    with pytest.raises(ConfigError, match="expected 2 to 1024"):
        lg.export.medium(run, out=tmp_path / "b.npz", cells=1)
    with pytest.raises(InputError, match="holds no picture"):
        lg.export.picture(run, out=tmp_path / "a.png")


def test_the_field_never_passes_its_majorants(puff, config, tmp_path):
    run = train(puff, dataclasses.replace(config, steps=3), out=tmp_path / "run")
    field = run.model("cpu").field
    with torch.no_grad():
        field.network.weights *= 50
    points = torch.rand(5000, 3)
    density, albedo = field.density_and_albedo(points)
    x, y, z = (points * len(field.majorants)).long().unbind(1)
    assert bool((density <= field.majorants[x, y, z]).all()) and float(density.min()) >= 0
    assert 0 <= float(albedo.min()) <= float(albedo.max()) <= 1


def test_a_run_goes_on_exactly(config, stopped_and_resumed):
    config = dataclasses.replace(config, steps=10, batch_samples=256)
    first, second = stopped_and_resumed("builtin:fog", config)
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_paths_or_a_preview_by_the_command(puff, config, tmp_path):
    from lumigraph.cli import main

    run = train(puff, dataclasses.replace(config, steps=30), out=tmp_path / "run")
    options = ["--path", "turntable", "--frames", "2", "--width", "20", "--height", "15"]
    for samples, out in (("0", "a"), ("3", "b")):
        words = ["render", str(run.path), *options, "--samples", samples]
        assert main([*words, "--out", str(tmp_path / out)]) == 0
    pictures = [(tmp_path / out / "00000.png").read_bytes() for out in ("a", "b")]
    assert pictures[0] != pictures[1]
    assert main(["render", str(run.path), "--samples", "-1", "--out", str(tmp_path / "c")]) == 2


def test_what_does_not_fit_is_refused(config, tmp_path):
    with pytest.raises(DataError, match="method volume needs a medium"):
        train(lg.datasets.load("builtin:object"), config, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="anisotropy = 1"):
        train_config("volume", anisotropy=1.0)


def test_it_is_inspected_without_a_word_about_missing_pictures():
    from lumigraph.datasets.inspection import inspect

    assert not inspect(load_medium("builtin:cloud")).problems
