"""Order of views, resolutions, masks and depths, memory."""

import dataclasses
import re

import pytest
import torch

from lumigraph.core import Cameras, ConfigError, DataError
from lumigraph.core.scene import PointCloud
from lumigraph.training.gaussians import memory
from lumigraph.training.gaussians.depth_targets import CELL, depth_target
from lumigraph.training.gaussians.memory import check_memory, forecast
from lumigraph.training.gaussians.schedule import (
    Clock,
    Schedule,
    harmonics_degree,
    refines_now,
    resolution_scale,
)
from lumigraph.training.gaussians.views import ViewSampler
from lumigraph.training.method import Progress

CPU = torch.device("cpu")


class Maps:
    """A map for each camera, from a function of its index."""

    def __init__(self, make, count=6):
        self.make, self.count = make, count

    def __len__(self):
        return self.count

    def load(self, index):
        return self.make(index)


def sampler(scene, **options) -> ViewSampler:
    values = {"budget_bytes": 2**20, "device": CPU, "seed": 0, **options}
    return ViewSampler(scene, scene.split("train"), **values)


def test_every_view_comes_once_in_each_round(make_scene):
    views = sampler(make_scene())
    rounds = [[views.next().place for _ in range(6)] for _ in range(4)]
    assert all(sorted(places) == list(range(6)) for places in rounds)
    assert len({tuple(places) for places in rounds}) > 1


def test_the_order_goes_on_after_a_restore(make_scene):
    views = sampler(make_scene())
    for _ in range(8):
        views.next()
    state = {name: tensor.clone() for name, tensor in views.state().items()}
    wanted = [views.next().place for _ in range(20)]
    other = sampler(make_scene(), seed=5)
    other.next()
    other.restore(state)
    assert [other.next().place for _ in range(20)] == wanted


def test_resolution_changes_cameras_and_images_alike(make_scene):
    views = sampler(make_scene())
    half, whole = views.next(0.5), views.next(1.0)
    assert half.images.rgba.shape == (12, 12, 3) and half.camera.size(0) == (12, 12)
    assert half.splat.intrinsics == pytest.approx((14.4, 14.4, 6, 6), rel=1e-5)
    assert (whole.splat.width, whole.splat.height) == (24, 24)
    assert half.images.rgba[4:8, 4:8, 0].unique().tolist() == [200]


def test_images_over_the_budget_are_prepared_each_time(make_scene):
    one = 24 * 24 * 3
    rich, poor = sampler(make_scene()), sampler(make_scene(), budget_bytes=2 * one)
    for _ in range(12):
        a, b = rich.next(), poor.next()
        assert a.place == b.place and torch.equal(a.images.rgba, b.images.rgba)
    assert rich._kept_bytes == 6 * one and poor._kept_bytes == 2 * one


@pytest.mark.parametrize("ahead", [1, 3, 10])
def test_a_long_video_takes_the_budget_and_what_is_prepared_ahead(ahead, make_scene):
    one = 24 * 24 * 3
    views = sampler(make_scene(), budget_bytes=2 * one, ahead=ahead)
    plain = sampler(make_scene())
    for _ in range(30):
        view, wanted = views.next(), plain.next()
        assert view.place == wanted.place
        assert torch.equal(view.images.rgba, wanted.images.rgba)
        assert sum(kept.images.nbytes for kept in views._kept.values()) <= 2 * one
        assert len(views._ahead) <= ahead


def test_views_of_a_moving_scene_come_at_all_times(make_scene):
    scene = make_scene()
    assert sampler(scene).next().time is None
    times = torch.linspace(0, 1, 6)
    timed = [scene.cameras[i].at_time(float(t)) for i, t in enumerate(times)]
    moving = dataclasses.replace(scene, cameras=Cameras.concatenate(timed))
    views = sampler(moving)
    assert sorted(views.next().time for _ in range(6)) == pytest.approx(times.tolist())
    asked = views.some(3)
    assert [time for time, _ in asked] == pytest.approx([0.0, 0.4, 1.0])


def test_empty_pixels_show_the_background_and_ignored_ones_have_no_weight(make_scene):
    masks = Maps(lambda index: torch.arange(24)[None].expand(24, 24) >= 12)
    view = sampler(make_scene(alpha=True, masks=masks)).next()
    target = view.target(torch.tensor([0.1, 0.2, 0.3]))
    assert target[0, 0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert target[10, 10, 0] == pytest.approx(200 / 255)
    weight = view.images.weight
    assert not weight[:, :12].any() and bool((weight[:, 12:] == 1).all())
    sky = torch.rand(24, 24, 3)
    assert torch.equal(view.target(sky)[0], sky[0])


def test_depths_are_single_pixels_of_the_map(make_scene):
    depths = Maps(lambda index: torch.arange(24.0)[:, None].expand(24, 24))
    scene = make_scene(depths=depths)
    view = sampler(scene, depths=True).next(0.5)
    assert view.images.depth[:, 3].tolist() == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]


def test_points_behind_others_give_no_depth(make_scene):
    scene = make_scene()
    camera = scene.cameras[0]
    ahead = camera.forwards[0]
    near = camera.positions[0] + 2.0 * ahead
    aside = torch.linalg.cross(ahead, torch.tensor([0.0, 0.0, 1.0]))
    positions = torch.stack([near, near + ahead, near + 0.1 * ahead + 0.1 * aside, -5 * near])
    scene = make_scene(points=PointCloud(positions))
    depth = depth_target(scene, 0, camera)
    found = depth[depth > 0]
    assert CELL < 24 and found.sort().values.tolist() == pytest.approx([2.0, 2.1], abs=1e-4)


def test_depths_are_wanted_and_none_are_known(make_scene):
    with pytest.raises(DataError, match="has neither depths nor points; set depth_weight to 0"):
        sampler(make_scene(), depths=True)


def test_an_image_of_another_size_is_named(make_scene):
    scene = make_scene()
    scene = make_scene(cameras=scene.cameras.resized_to(10, 12))
    with pytest.raises(DataError, match="000.: 24 x 24 pixels, but its camera says 10 x 12"):
        sampler(scene).next()


# --- memory ----------------------------------------------------------------------------------


def test_a_run_that_cannot_fit_says_what_to_lower(make_scene, small_config):
    config = small_config(max_gaussians=10_000_000, memory_budget_gib=2.0)
    with pytest.raises(ConfigError) as caught:
        check_memory(make_scene(), config, CPU)
    text = str(caught.value)
    assert "\n" not in text
    assert re.fullmatch(
        r"max_gaussians = 10000000: training would need about [\d.]+ GiB \([\d.]+ for images\), "
        r"but memory_budget_gib is 2; lower max_gaussians",
        text,
    )


def test_large_images_are_blamed_when_it_is_them(make_scene, small_config, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000)
    with pytest.raises(ConfigError, match=r"0.0 GiB are free on cpu; lower image_scale or image"):
        check_memory(make_scene(), small_config(max_gaussians=1), CPU)


def test_the_forecast_grows_with_what_it_depends_on(make_scene, small_config):
    scene = make_scene()
    small = forecast(scene, small_config(), CPU)
    more = forecast(scene, small_config(max_gaussians=800), CPU)
    assert more.gaussians == pytest.approx(10 * small.gaussians, rel=0.01)
    bands = forecast(scene, small_config(harmonics_degree=3), CPU)
    assert bands.gaussians > 1.5 * small.gaussians
    assert small.total == small.gaussians + small.tiles + small.views
    assert memory.available_bytes(CPU) > 2**20


# --- schedule --------------------------------------------------------------------------------


def test_planned_runs_count_steps(small_config):
    config = small_config(steps=3000)
    schedule = Schedule(config)
    assert schedule.clock(Progress(99, 0.033, 3000)) == Clock(99, 100, 3000)


def test_timed_runs_see_every_turn_of_the_schedule_at_any_pace(small_config):
    config = small_config(steps=None, seconds=10.0, refine_start=500, refine_every=100)
    for steps in (700, 9000):
        schedule = Schedule(config)
        clocks = [schedule.clock(Progress(i, i / steps, 1)) for i in range(steps)]
        refined = sum(refines_now(config, clock) for clock in clocks)
        # tiny: 4000 steps, mcmc refines from 500 to 5/6 of them
        assert refined == 29
        assert clocks[-1].before == pytest.approx(4000, rel=4e-3)


def test_harmonics_and_resolution_follow_the_clock(small_config):
    config = small_config(harmonics_degree=2, harmonics_every=10)
    assert [harmonics_degree(config, Clock(t, t + 1, 90)) for t in (0, 9, 10, 25, 80)] == [
        0,
        0,
        1,
        2,
        2,
    ]
    assert harmonics_degree(small_config(harmonics_every=0), Clock(0, 1, 9)) == 1
    scales = [resolution_scale(config, Clock(t, t + 1, 90)) for t in (0, 7, 8, 100, 10**9)]
    assert scales == [0.5, 0.5, 1.0, 1.0, 1.0]
