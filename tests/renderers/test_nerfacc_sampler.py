"""The nerfacc back end: without a GPU through a stand-in for the package's functions, written from
its documentation; with a GPU and the package against our own path."""

import types

import pytest
import torch

from lumigraph.core.errors import BackendError, ConfigError, MissingExtraError
from lumigraph.fields import HashGridField, to_grid_space
from lumigraph.renderers import nerfacc_sampler

BOUNDS = torch.tensor([[-1.0, -4.0, -1.5], [3.0, 0.0, 2.5]])


def rays_of(camera, device="cpu"):
    rays = camera.image_rays(0)
    return to_grid_space(rays.origins, BOUNDS).to(device), rays.directions.to(device)


def traverse_grids(origins, directions, cells, boxes, *, near_planes, step_size, cone_angle):
    """Steps of one length from the near plane on, where the finest box around their middle holds
    an occupied cell; cells (K, X, Y, Z), boxes (K, 6) lower then upper corner."""
    assert cells.dtype == torch.bool and cone_angle == 0
    resolution = torch.tensor(cells.shape[1:])
    number = torch.arange(int(12 / step_size))
    starts = near_planes[:, None] + number * step_size
    middles = starts + step_size / 2
    points = origins[:, None] + middles[..., None] * directions[:, None]
    kept = torch.zeros(middles.shape, dtype=torch.bool)
    undecided = torch.ones_like(kept)
    for level, box in enumerate(boxes):
        unit = (points - box[:3]) / (box[3:] - box[:3])
        inside = ((unit >= 0) & (unit < 1)).all(dim=-1)
        x, y, z = (unit * resolution).long().clamp(min=0).minimum(resolution - 1).unbind(-1)
        kept |= undecided & inside & cells[level][x, y, z]
        undecided &= ~inside
    ray, place = kept.nonzero(as_tuple=True)
    # vals of both ends of every step, as if none touched another
    ends = torch.stack([starts[ray, place], starts[ray, place] + step_size], 1).reshape(-1)
    is_left = torch.arange(len(ends)) % 2 == 0
    intervals = types.SimpleNamespace(vals=ends, is_left=is_left, is_right=~is_left)
    return intervals, types.SimpleNamespace(ray_indices=ray), None


def before(thickness, ray_indices):
    """Sum over the earlier samples of the same ray."""
    earlier = torch.tril(torch.ones(len(thickness), len(thickness)), -1)
    same = ray_indices[:, None] == ray_indices
    return (earlier * same) @ thickness


def render_weight_from_density(starts, ends, density, *, ray_indices, n_rays):
    thickness = density * (ends - starts)
    transmittance = torch.exp(-before(thickness, ray_indices))
    alpha = 1 - torch.exp(-thickness)
    return transmittance * alpha, transmittance, alpha


def render_visibility_from_density(starts, ends, density, *, ray_indices, n_rays, early_stop_eps):
    _, transmittance, _ = render_weight_from_density(
        starts, ends, density, ray_indices=ray_indices, n_rays=n_rays
    )
    return transmittance >= early_stop_eps


def accumulate_along_rays(weights, values, *, ray_indices, n_rays):
    values = weights[:, None] if values is None else weights[:, None] * values
    return torch.zeros(n_rays, values.shape[1]).index_add(0, ray_indices, values)


@pytest.fixture
def stand_in(monkeypatch):
    functions = (
        traverse_grids,
        render_weight_from_density,
        render_visibility_from_density,
        accumulate_along_rays,
    )
    library = types.SimpleNamespace(**{function.__name__: function for function in functions})
    monkeypatch.setattr(nerfacc_sampler, "nerfacc_library", lambda device: library)


def lively_field():
    field = HashGridField(
        BOUNDS, levels=2, log2_table_size=8, base_resolution=4, max_resolution=8, hidden_width=16
    )
    with torch.no_grad():
        field.table *= 2e4
    return field


def some_cells(renderer):
    generator = torch.Generator().manual_seed(0)
    values = renderer.occupancy.values
    values.copy_((torch.rand(values.shape, generator=generator) < 0.5).float())
    renderer.occupancy.refresh()
    return renderer


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("density", [2.0, 400.0])
def test_results_have_our_units(analytic, make_renderer, make_camera, density):
    """A box of constant density: opacity and distance within a step of our own."""
    field, renderer = analytic("box", density, 0.2), make_renderer(steps=96)
    origins, directions = rays_of(make_camera(5, focal=20.0))
    background = torch.full_like(origins, 0.6)
    ours = renderer.render_rays(field, origins, directions, background=background)
    renderer.sampler = "nerfacc"
    theirs = renderer.render_rays(field, origins, directions, background=background)
    step = renderer.occupancy.minimum_step
    assert float(ours.opacity.max()) > 0.5
    assert float((ours.opacity - theirs.opacity).abs().max()) < min(density, 2.5) * step
    assert float((ours.color - theirs.color).abs().max()) < min(density, 2.5) * step
    assert float((ours.distance - theirs.distance).abs().max()) < 4 * step
    assert int(theirs.counts.sum()) == int(theirs.sample_count)
    if density > 100:  # the samples behind the early stop were never asked for
        assert int(theirs.sample_count) < int(ours.sample_count) / 2


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("cascades", [1, 2])
def test_cells_lie_where_ours_lie(analytic, make_renderer, make_camera, cascades, monkeypatch):
    """Every sample of ours has one of theirs near it, on a grid without symmetry."""
    monkeypatch.setattr("lumigraph.cuda.marching.MarchGrid.with_steps", constant_steps)
    renderer = some_cells(make_renderer(steps=96, cascades=cascades))
    field = analytic("gaussian", 3.0, 0.4, cascades=cascades)
    origins, directions = rays_of(make_camera(5, focal=10.0))
    ours = renderer.render_rays(field, origins, directions)
    renderer.sampler = "nerfacc"
    theirs = renderer.render_rays(field, origins, directions)
    assert float((ours.opacity - theirs.opacity).abs().mean()) < 0.03
    assert float((ours.counts - theirs.counts).abs().float().mean()) < 6
    assert float(ours.opacity.std()) > 0.1
    # swapping two axes of the grid would show
    renderer.sampler = "lumigraph"
    cells = renderer.occupancy.values.reshape(cascades, *[renderer.occupancy.resolution] * 3)
    renderer.occupancy.values.copy_(cells.transpose(1, 3).reshape(-1).clone())
    renderer.occupancy.refresh()
    turned = renderer.render_rays(field, origins, directions)
    assert float((turned.opacity - theirs.opacity).abs().mean()) > 0.04


def constant_steps(bits, coarse, *, resolution, cascades, steps):
    from lumigraph.cuda.marching import MarchGrid

    step = 3**0.5 / steps
    return MarchGrid(bits, coarse, resolution, cascades, step, step, 0.0)


@pytest.mark.usefixtures("stand_in")
def test_gradients_reach_field_rays_and_background(make_renderer, make_camera):
    field, renderer = lively_field(), make_renderer(steps=48)
    renderer.sampler = "nerfacc"
    origins, directions = rays_of(make_camera(3, focal=10.0))
    leaves = [t.clone().requires_grad_() for t in (origins, directions, torch.rand(9, 3))]
    out = renderer.render_rays(field, leaves[0], leaves[1], background=leaves[2])
    (out.color.sum() + out.distance.sum()).backward()
    for tensor in [*leaves, *field.parameters()]:
        assert float(tensor.grad.abs().max()) > 0


@pytest.mark.usefixtures("stand_in")
def test_frames_jitter_and_no_rays(make_renderer, make_camera):
    field, renderer = lively_field(), make_renderer(steps=48)
    ours = renderer.render(field, make_camera(5, focal=20.0))
    renderer.sampler = "nerfacc"
    theirs = renderer.render(field, make_camera(5, focal=20.0))
    assert float((ours.color - theirs.color).abs().max()) < 0.05
    assert float((ours.depth - theirs.depth).abs().max()) < 0.2
    origins, directions = rays_of(make_camera(3))
    outs = [
        renderer.render_rays(field, origins, directions, jitter=torch.full((9,), u))
        for u in (0.2, 0.2, 0.7)
    ]
    assert torch.equal(outs[0].color, outs[1].color)
    assert not torch.equal(outs[0].color, outs[2].color)
    none = renderer.render_rays(field, origins[:0], directions[:0])
    assert none.color.shape == (0, 3) and int(none.sample_count) == 0


@pytest.mark.usefixtures("stand_in")
def test_distortion_is_refused(make_renderer):
    renderer = make_renderer()
    renderer.sampler = "nerfacc"
    rays = torch.zeros(1, 3), torch.ones(1, 3)
    with pytest.raises(ConfigError, match="distortion_weight: sampler nerfacc has no distortion"):
        renderer.render_rays(lively_field(), *rays, distortion=True)


def test_what_is_missing_is_named(make_renderer, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nerfacc", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lumigraph\[peers\]'"):
        make_renderer(sampler="nerfacc")
    monkeypatch.setitem(__import__("sys").modules, "nerfacc", types.ModuleType("nerfacc"))
    renderer = make_renderer(sampler="nerfacc")
    with pytest.raises(BackendError, match="needs an NVIDIA GPU and the device is cpu"):
        renderer.to(torch.device("cpu"))
    with pytest.raises(BackendError, match="use --device cuda, or --sampler lumigraph"):
        renderer.render_rays(lively_field(), torch.zeros(1, 3), torch.ones(1, 3))


@pytest.mark.gpu
def test_gpu_nerfacc_agrees_with_ours(analytic, make_renderer, make_camera):
    pytest.importorskip("nerfacc")
    device = torch.device("cuda")
    renderer = make_renderer(steps=1024)
    try:
        nerfacc_sampler.nerfacc_library(device)
    except BackendError as error:
        pytest.skip(str(error))
    renderer = some_cells(renderer).to(device)
    field = analytic("gaussian", 9.0, 0.15)
    origins, directions = rays_of(make_camera(33, focal=60.0), device)
    ours = renderer.render_rays(field, origins, directions)
    renderer.sampler = "nerfacc"
    theirs = renderer.render_rays(field, origins, directions)
    assert float((ours.opacity - theirs.opacity).abs().mean()) < 2e-3
    assert float((ours.distance - theirs.distance).abs().mean()) < 5e-3
    assert float(ours.opacity.mean()) > 0.05
