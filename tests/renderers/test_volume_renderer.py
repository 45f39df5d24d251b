"""The paths through the volume renderer agree, and its gradients are right."""

import pytest
import torch

from lumigraph.core.errors import ConfigError
from lumigraph.fields import HashGridField, to_grid_space
from lumigraph.renderers import Cancelled
from lumigraph.renderers import volume as volume_module

BOUNDS = torch.tensor([[-1.0, -4.0, -1.5], [3.0, 0.0, 2.5]])


def lively_field(cascades: int = 1) -> HashGridField:
    """Random, with densities from nearly nothing to opaque."""
    field = HashGridField(
        BOUNDS,
        levels=3,
        features=2,
        log2_table_size=10,
        base_resolution=4,
        max_resolution=16,
        hidden_width=16,
        aabb_scale=2 ** (cascades - 1),
        seed=3,
    )
    with torch.no_grad():
        field.table *= 2e4
        field.density_weights *= 2
    return field


def rays_of(camera, bounds):
    rays = camera.image_rays(0)
    return to_grid_space(rays.origins, bounds), rays.directions


@pytest.mark.parametrize("cascades", [1, 3])
def test_the_fused_path_equals_the_step_by_step_path(make_renderer, make_camera, cascades):
    field, camera = lively_field(cascades), make_camera(17, focal=20.0)
    renderer = make_renderer(steps=128, cascades=cascades, background=0.7)
    frame = renderer.render(field, camera)
    origins, directions = rays_of(camera, field.bounds)
    background = torch.full_like(origins, 0.7)
    out = renderer.render_rays(field, origins, directions, background=background)
    assert 0.1 < float(frame.opacity.mean()) < 0.995
    assert torch.allclose(frame.color.reshape(-1, 3), out.color, atol=1e-5)
    assert torch.allclose(frame.opacity.reshape(-1), out.opacity, atol=1e-5)
    assert torch.equal(frame.extras["samples"].reshape(-1), out.counts.float())
    hit = out.opacity > 0.05
    depth = 4 * out.distance / out.opacity * camera.depth_factors(camera.image_rays(0))
    assert torch.allclose(frame.depth.reshape(-1)[hit], depth[hit], rtol=1e-4)


@pytest.mark.gpu
def test_gpu_frames_equal_cpu_frames(make_renderer, make_camera):
    field, camera = lively_field(), make_camera(33, focal=40.0)
    wanted = make_renderer(steps=128).render(field, camera, normals=True)
    device = torch.device("cuda")
    renderer = make_renderer(steps=128).to(device)
    found = renderer.render(field.to(device), camera.to(device), normals=True).to("cpu")
    for name, bound in (("color", 0.01), ("opacity", 0.01), ("depth", 0.05), ("normal", 0.1)):
        error = (getattr(found, name) - getattr(wanted, name)).abs().mean()
        assert float(error) < bound, name


class Foreign:
    """A field without the parts that fused passes need."""

    def __init__(self, field: HashGridField) -> None:
        self.bounds, self.cascades = field.bounds, field.cascades
        self.density, self.query = field.density, field.query

    def networks(self) -> None:
        return None


def test_frames_of_a_foreign_field_keep_every_ray(make_renderer, make_camera, monkeypatch):
    """With room for few samples at a time too: nothing may be left out."""
    field, camera = lively_field(), make_camera(17, focal=20.0)
    renderer = make_renderer(steps=128)
    wanted = renderer.render(field, camera, normals=True)
    monkeypatch.setattr(volume_module, "QUERIES_PER_CHUNK", 1024)
    monkeypatch.setattr(volume_module, "RAYS_PER_CHUNK", {"cpu": 50})
    found = renderer.render(Foreign(field), camera, normals=True)
    assert float(wanted.extras["samples"].sum()) > 10 * 1024
    for name in ("color", "opacity", "depth", "normal"):
        assert torch.allclose(getattr(found, name), getattr(wanted, name), atol=1e-4), name
    assert torch.equal(found.extras["samples"], wanted.extras["samples"])


def test_an_empty_grid_shows_the_background(make_renderer, make_camera):
    renderer = make_renderer(background=0.25)
    renderer.occupancy.refresh()  # all values are zero
    for field in (lively_field(), Foreign(lively_field())):
        frame = renderer.render(field, make_camera(), normals=True)
        assert torch.equal(frame.color, torch.full((9, 9, 3), 0.25))
        assert not frame.opacity.any() and not frame.depth.any() and not frame.normal.any()


def test_no_room_for_samples_drops_whole_rays(make_renderer, make_camera):
    field = lively_field()
    origins, directions = rays_of(make_camera(9), field.bounds)
    out = make_renderer(steps=64).render_rays(field, origins, directions, max_samples=300)
    whole = make_renderer(steps=64).render_rays(field, origins, directions)
    shown = out.counts > 0
    assert 0 < int(shown.sum()) < 81 and int(out.sample_count) <= 300
    assert torch.allclose(out.color[shown], whole.color[shown], atol=1e-6)
    assert not out.color[~shown].any()


def test_a_frame_can_be_cancelled(make_renderer, make_camera, monkeypatch):
    monkeypatch.setattr(volume_module, "RAYS_PER_CHUNK", {"cpu": 30})
    fractions = []

    def listener(fraction: float) -> bool:
        fractions.append(fraction)
        return fraction > 0.5

    with pytest.raises(Cancelled):
        make_renderer(steps=64).render(lively_field(), make_camera(9), on_chunk=listener)
    assert fractions == pytest.approx([0, 30 / 81, 60 / 81])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_gradients_by_rays(analytic, make_renderer, make_camera, device):
    """Against central differences; the field is smooth, so the moving samples do not matter."""
    field = analytic("gaussian", 6.0, 0.12)
    renderer = make_renderer(steps=256).to(torch.device(device))
    origins, directions = rays_of(make_camera(5, focal=14.0), field.bounds)
    origins, directions = origins.to(device), directions.to(device)
    background = torch.full_like(origins, 0.2)

    def pixel_sum(origins, directions):
        unit = torch.nn.functional.normalize(directions, dim=1)
        out = renderer.render_rays(field, origins, unit, background=background)
        return out.color.sum(dim=1) + out.opacity

    origins.requires_grad_()
    directions.requires_grad_()
    found = torch.autograd.grad(pixel_sum(origins, directions).sum(), (origins, directions))
    small = 2e-3
    for which, gradient in enumerate(found):
        assert float(gradient.norm()) > 0.1
        for axis in range(3):
            values = []
            for sign in (1, -1):
                rays = [origins.detach().clone(), directions.detach().clone()]
                rays[which][:, axis] += sign * small
                values.append(pixel_sum(*rays))
            difference = (values[0] - values[1]) / (2 * small)
            assert torch.allclose(gradient[:, axis], difference, atol=2e-2)


def test_gradients_by_the_field_and_the_background(make_renderer, make_camera):
    field = lively_field()
    origins, directions = rays_of(make_camera(9), field.bounds)
    background = torch.rand_like(origins).requires_grad_()
    out = make_renderer(steps=64, early_stop=0.0).render_rays(
        field, origins, directions, background=background, distortion=True
    )
    (out.color.sum() + out.distortion.sum()).backward()
    for name, parameter in field.named_parameters():
        assert float(parameter.grad.norm()) > 0, name
    through = (1 - out.opacity.detach())[:, None].expand_as(background)
    assert torch.allclose(background.grad, through, atol=1e-5)


def test_jitter_moves_samples_by_less_than_a_step(analytic, make_renderer, make_camera):
    field = analytic("box", 4.0, 0.25)
    renderer = make_renderer(steps=64)
    origins, directions = rays_of(make_camera(9), field.bounds)
    outs = [
        renderer.render_rays(field, origins, directions, jitter=torch.full((81,), u))
        for u in (0.0, 0.5, 0.99)
    ]
    middle = renderer.render_rays(field, origins, directions)
    assert torch.equal(middle.opacity, outs[1].opacity)
    step = renderer.occupancy.minimum_step
    assert float((outs[0].distance - outs[2].distance).abs().max()) > 0
    assert float((outs[0].opacity - outs[2].opacity).abs().max()) < 4.0 * step


def test_unknown_sampler(make_renderer):
    with pytest.raises(ConfigError, match="sampler = 'other': use lumigraph or nerfacc"):
        make_renderer(sampler="other")
