"""Gaussians of a run: moved into the capture's frame, to files and to point clouds."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lumigraph import export
from lumigraph.core import DataError, GaussianCloud, InputError, Similarity
from lumigraph.core.transforms import rotation_exp
from lumigraph.datasets.formats.ply import read_points
from lumigraph.export import PointsOptions

MOVE = Similarity(0.25, rotation_exp(torch.tensor([0.3, -0.8, 0.5])), torch.tensor([1.0, 2, 3]))


@dataclass
class FakeRun:
    """As much of a `training.Run` as exporting asks for."""

    cloud: GaussianCloud
    path: Path = Path("runs/x")
    config: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(method="gaussians", antialiased=True)
    )

    def model(self, device):
        assert device == "cpu"
        return SimpleNamespace(field=SimpleNamespace(cloud=lambda: self.cloud))

    def scene(self):
        return SimpleNamespace(normalization=MOVE)


def test_the_files_are_in_the_capture_frame(tmp_path, random_cloud):
    cloud = random_cloud()
    report = export.splats(FakeRun(cloud.transformed(MOVE)), out=tmp_path / "a.ply")
    found = export.read_splats(tmp_path / "a.ply").cloud
    torch.testing.assert_close(found.means, cloud.means, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.log_scales, cloud.log_scales, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.harmonics, cloud.harmonics, atol=1e-5, rtol=0)
    assert report.count == 500
    export.splats(FakeRun(cloud), out=tmp_path / "b.ply", frame="scene")
    assert torch.equal(export.read_splats(tmp_path / "b.ply").cloud.means, cloud.means)


def test_the_note_of_antialiasing_comes_from_the_run(tmp_path, random_cloud):
    export.splats(FakeRun(random_cloud()), out=tmp_path / "a.spz")
    assert export.read_splats(tmp_path / "a.spz").report.antialiased
    export.splats(tmp_path / "a.spz", out=tmp_path / "b.spz")
    assert export.read_splats(tmp_path / "b.spz").report.antialiased


def test_other_methods_have_no_gaussians(tmp_path, random_cloud):
    run = FakeRun(random_cloud(), config=SimpleNamespace(method="nerf"))
    with pytest.raises(InputError, match="method 'nerf', which has no Gaussians; train with"):
        export.splats(run, out=tmp_path / "a.ply")
    with pytest.raises(DataError, match="no such file"):
        export.splats(tmp_path / "nothing", out=tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())


def test_points_have_places_and_colors(tmp_path, random_cloud):
    cloud = random_cloud()
    report = export.points(cloud, out=tmp_path / "a.ply", options=PointsOptions(least_opacity=0.5))
    opaque = cloud.opacity_logits.sigmoid() >= 0.5
    positions, colors = read_points(tmp_path / "a.ply")
    assert report.count == int(opaque.sum()) == len(positions)
    assert report.left_out == 500 - report.count
    np.testing.assert_array_equal(positions, cloud.means[opaque].double().numpy())
    y_0 = 0.5 / math.sqrt(math.pi)
    shown = (0.5 + y_0 * cloud.harmonics[opaque, 0]).clamp(0, 1) * 255
    np.testing.assert_allclose(colors, shown.numpy(), atol=0.51)
    everything = export.points(
        FakeRun(cloud), out=tmp_path / "b.ply", options=PointsOptions(least_opacity=0.0)
    )
    assert everything.count == 500


def test_points_that_are_refused(tmp_path, random_cloud):
    cloud = random_cloud(5)
    with pytest.raises(InputError, match=r"points are written as \.ply"):
        export.points(cloud, out=tmp_path / "a.spz")
    with pytest.raises(InputError, match="least_opacity 2: expected 0 to 1"):
        export.points(cloud, out=tmp_path / "a.ply", options=PointsOptions(least_opacity=2))
    faint = GaussianCloud(*cloud.tensors()[:3], cloud.opacity_logits - 30, cloud.harmonics)
    with pytest.raises(DataError, match="none of 5 Gaussians is as opaque as 0.1; lower"):
        export.points(faint, out=tmp_path / "a.ply")
    export.points(cloud, out=tmp_path / "a.ply", options=PointsOptions(least_opacity=0))
    with pytest.raises(InputError, match="exists already"):
        export.points(cloud, out=tmp_path / "a.ply", options=PointsOptions(least_opacity=0))
