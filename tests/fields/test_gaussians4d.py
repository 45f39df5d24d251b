"""The field of Gaussians in space and time: storage, the static limit, what it shows at a time."""

import doctest
import math

import pytest
import torch

from lumigraph.core import Cameras, GaussianCloud, GaussianCloud4D, InputError
from lumigraph.core.transforms import rotation_from_quaternion
from lumigraph.cuda.ops import SplatOptions, render_gaussians
from lumigraph.fields import (
    Gaussian4DTensors,
    Gaussians,
    Gaussians4D,
    MovingField,
    PrimitiveField,
    SplattedField,
    gaussian_shapes,
    gaussians4d,
)
from lumigraph.renderers import SplatRenderer


def static_cloud(count: int = 60, degree: int = 2, seed: int = 0) -> GaussianCloud:
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return GaussianCloud(
        0.5 * normal(count, 3) + torch.tensor([0.0, 0, 3]),
        normal(count, 4),
        -2 + 0.5 * normal(count, 3),
        normal(count) + 1,
        0.3 * normal(count, (degree + 1) ** 2, 3),
    )


def moving_cloud(count: int = 60, *, plateaus: bool = False, seed: int = 1) -> GaussianCloud4D:
    generator = torch.Generator().manual_seed(seed)
    still = static_cloud(count, seed=seed)
    lifted = GaussianCloud4D.from_static(
        still, times=torch.rand(count, generator=generator), duration=0.12,
        log_plateaus=torch.full((count,), -2.0) if plateaus else None,
    )  # fmt: skip
    rotors = lifted.rotors + 0.4 * torch.randn(count, 8, generator=generator)
    return GaussianCloud4D(lifted.means, lifted.times, rotors, *lifted.tensors()[3:])


def camera(time: float | None = None, side: int = 40) -> Cameras:
    cameras = Cameras.from_intrinsics(torch.eye(4), side, side - 7, float(side))
    return cameras if time is None else cameras.at_time(time)


def close(first, second, bound: float) -> None:
    assert float((first.color - second.color).abs().amax()) <= bound
    assert float((first.opacity - second.opacity).abs().amax()) <= bound
    assert float((first.depth - second.depth).abs().amax()) <= 10 * bound


@pytest.mark.parametrize("time", [0.0, 0.37, 1.0, None])
def test_the_static_limit_is_the_static_field(time):
    cloud = static_cloud()
    cloud.log_scales[:, 1] -= 1.5  # flat: no two axes are the shortest
    renderer = SplatRenderer(background=torch.rand(3))
    field = Gaussians4D(GaussianCloud4D.from_static(cloud))
    ours = renderer.render(field, camera(time), normals=True)
    wanted = renderer.render(Gaussians(cloud), camera(time), normals=True)
    close(ours, wanted, 1e-5)
    assert float((ours.normal - wanted.normal).abs().amax()) < 1e-2
    assert not renderer.optical_flow(field, camera(time), 0.1).any()


def test_gradients_of_the_static_limit_are_the_static_ones():
    cloud = static_cloud()
    view = SplatRenderer(background=torch.zeros(3)).camera(camera())
    field, still = Gaussians4D(GaussianCloud4D.from_static(cloud)), Gaussians(cloud)
    weight = torch.rand(33, 40, 3, generator=torch.Generator().manual_seed(2))
    (field.render(0.2, view).color * weight).sum().backward()
    (render_gaussians(*still.tensors, view).color * weight).sum().backward()
    rotor = torch.stack([field.rotors.grad[:, j] for j in (0, 3, 2, 1)], dim=1)
    pairs = {
        "means": (field.means.grad, still.means.grad),
        "rotations": (rotor * torch.tensor([1.0, -1, 1, -1]), still.rotations.grad),
        "scales": (field.log_scales.grad[:, :3], still.log_scales.grad),
        "opacities": (field.opacity_logits.grad, still.opacity_logits.grad),
        "harmonics": (field.harmonics.grad, still.harmonics.grad),
    }
    for name, (ours, wanted) in pairs.items():
        # |a| = |b| = |q|: the eight numbers share what the four of a quaternion receive
        assert float((ours - wanted).norm() / wanted.norm()) < 1e-4, name


@pytest.mark.parametrize("plateaus", [False, True])
@pytest.mark.parametrize("time", [0.1, 0.6])
def test_static_equivalents_look_the_same(plateaus, time):
    field = Gaussians4D(moving_cloud(plateaus=plateaus), still=static_cloud(20, degree=1, seed=4))
    renderer = SplatRenderer(background=torch.zeros(3))
    tensors = field.gaussians_at(time)
    assert not any(tensor.requires_grad for tensor in tensors)
    assert 20 < len(tensors.means) < 80  # what has faded is not there
    ours = renderer.render(field, camera(time))
    close(ours, renderer.render(Gaussians(GaussianCloud(*tensors)), camera(time)), 2e-4)
    assert float(ours.opacity.amax()) > 0.8


def test_still_ones_share_the_picture():
    """Moved from one part to the other, Gaussians look as before."""
    cloud, moving = static_cloud(30, seed=8), moving_cloud(40)
    renderer = SplatRenderer(background=torch.rand(3))
    apart = Gaussians4D(moving, still=cloud)
    whole = Gaussians4D(GaussianCloud4D.concatenate([moving, GaussianCloud4D.from_static(cloud)]))
    close(renderer.render(apart, camera(0.5)), renderer.render(whole, camera(0.5)), 1e-5)
    assert len(apart) == 40 and len(apart.still) == 30


def test_every_parameter_has_a_gradient():
    field = Gaussians4D(moving_cloud(plateaus=True), still=static_cloud(20, seed=4))
    view = SplatRenderer(background=torch.zeros(3)).camera(camera())
    probe = torch.zeros(80, 2, requires_grad=True)
    images = field.render(0.4, view, SplatOptions(depth=True), screen_probe=probe)
    (images.color.sum() + images.depth.sum()).backward()
    named = dict(field.named_parameters())
    own = list(Gaussian4DTensors._fields)
    assert list(named)[: len(own)] == own and len(named) == len(own) + 5
    for name, parameter in named.items():
        assert parameter.grad is not None and bool(parameter.grad.any()), name
    seen = images.splats[:, 5] > 0
    assert images.splats.shape == (80, 12) and 20 < int(seen.sum()) < 80
    assert probe.grad is not None
    assert torch.equal(probe.grad.any(1), probe.grad.any(1) & seen) and bool(probe.grad.any())


def test_protocols_and_moments():
    field = Gaussians4D(moving_cloud(), moments=torch.tensor([0.25, 0.5]))
    assert isinstance(field, PrimitiveField) and isinstance(field, MovingField)
    assert isinstance(field, SplattedField) and not isinstance(
        Gaussians(static_cloud()), SplattedField
    )
    assert field.moments.tolist() == [0.25, 0.5]
    first, none = (SplatRenderer(background=torch.zeros(3)).render(field, camera(t))
                   for t in (0.25, None))  # fmt: skip
    assert torch.equal(first.color, none.color)
    for bad in ([], [0.5, 0.5], [0.5, 0.1], [-0.1], [1.5]):
        with pytest.raises(InputError, match="moments must be ascending"):
            Gaussians4D(moving_cloud(), moments=torch.tensor(bad))
    with pytest.raises(InputError, match="shortest"):
        Gaussians4D(moving_cloud(), shortest=0.0)
    with pytest.raises(InputError, match="active_degree must be 0 to 2"):
        Gaussians4D(moving_cloud(), active_degree=3)


def test_storage():
    cloud = moving_cloud(plateaus=True)
    field = Gaussians4D(cloud, active_degree=0)
    for given, kept in zip(cloud.tensors(), field.cloud().tensors(), strict=True):
        assert torch.equal(given, kept) and not kept.requires_grad
    field.grow_harmonics(3)
    assert field.degree == field.active_degree == field.still.active_degree == 3
    assert field.harmonics.shape == (60, 16, 3) and not field.harmonics[:, 9:].any()
    rotors = field.rotors
    field.set_tensors(field.tensors._replace(means=torch.zeros(60, 3)))
    assert field.rotors is rotors and not field.means.any()
    field.set_tensors(Gaussian4DTensors(*(t[:4].detach() for t in field.tensors)))
    assert len(field) == 4
    field.set_tensors(field.tensors._replace(log_plateaus=None))
    assert field.cloud().log_plateaus is None
    with pytest.raises(InputError, match="degree must be 0 to 3"):
        field.grow_harmonics(4)


def test_optical_flow_is_the_motion_on_the_screen():
    """One large Gaussian that moves to the right: 20 pixels for each unit of time and scene."""
    still = GaussianCloud(
        torch.tensor([[0.0, 0, 2]]), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), -1.0),
        torch.tensor([6.0]), torch.zeros(1, 1, 3),
    )  # fmt: skip
    cloud = GaussianCloud4D.from_static(still, duration=0.5)
    # x and t turned into each other: the covariance of both divided by the variance in time
    angle, sizes = 0.3, (math.exp(-2.0), 0.25)
    rotors = torch.tensor([[math.cos(angle / 2), 0, 0, 0, -math.sin(angle / 2), 0, 0, 0]])
    field = Gaussians4D(GaussianCloud4D(cloud.means, cloud.times, rotors, *cloud.tensors()[3:]))
    sin, cos = math.sin(angle), math.cos(angle)
    speed = sin * cos * (sizes[1] - sizes[0]) / (sin**2 * sizes[0] + cos**2 * sizes[1])
    velocity = field.sliced_at(0.5).velocities.detach()[0]
    assert velocity.abs().tolist() == pytest.approx([abs(speed), 0, 0], abs=1e-6)
    flow = SplatRenderer(background=torch.zeros(3)).optical_flow(field, camera(0.5), 0.1)
    assert flow.shape == (33, 40, 2)
    assert flow[16, 20].tolist() == pytest.approx([40 / 2 * 0.1 * float(velocity[0]), 0], abs=1e-4)
    assert not flow[0, 0].any()


def test_pictures_outside_of_training_are_prepared_once():
    field = Gaussians4D(moving_cloud(plateaus=True), still=static_cloud(20, degree=1, seed=4))
    renderer = SplatRenderer(background=torch.rand(3))
    plain = [renderer.render(field, camera(t), normals=True) for t in (0.1, 0.6)]
    flow = renderer.optical_flow(field, camera(0.6), 0.05)
    field.eval()
    first = field.prepared()
    for time, wanted in zip((0.1, 0.6), plain, strict=True):
        ours = renderer.render(field, camera(time), normals=True)
        close(ours, wanted, 1e-5)
        assert float((ours.normal - wanted.normal).abs().mean()) < 1e-5
    ours = renderer.optical_flow(field, camera(0.6), 0.05)
    assert float(flow.abs().amax()) > 0.1 and float((ours - flow).abs().amax()) < 1e-3
    assert field.prepared() is first and len(first) == 80
    with torch.no_grad():
        field.still.means += 0.1
    second = field.prepared()
    assert second is not first
    moved = renderer.render(field, camera(0.1)).color
    assert float((moved - plain[0].color).abs().amax()) > 1e-2
    field.grow_harmonics(3)
    assert field.prepared().degree == 3
    # kernels write where version counters do not see it: `train` forgets
    before = field.prepared()
    field.train().eval()
    assert field.prepared() is not before


def test_decomposition_and_shortest_axes():
    generator = torch.Generator().manual_seed(9)
    axes = torch.randn(500, 3, 3, generator=generator)
    axes[:4] *= 1e-6
    rotations, log_scales = gaussian_shapes.decomposed(axes)
    root = rotation_from_quaternion(rotations) * log_scales.exp()[:, None]
    covariance = axes @ axes.transpose(1, 2)
    size = covariance.abs().amax((1, 2), keepdim=True)
    assert float(((root @ root.transpose(1, 2) - covariance) / size).abs().amax()) < 1e-5
    lengths, vectors = torch.linalg.eigh(covariance.double())
    clear = lengths[:, 0] < 0.8 * lengths[:, 1]
    found = gaussian_shapes.shortest_axes(axes)
    cosine = (found.double() * vectors[:, :, 0]).sum(1).abs()
    assert int(clear.sum()) > 400 and float(cosine[clear].amin()) > 0.999
    flat = torch.eye(3) * torch.tensor([1.0, 0.0, 1.0])
    assert torch.allclose(gaussian_shapes.shortest_axes(flat[None]).abs(), torch.eye(3)[1:2])
    nothing = gaussian_shapes.shortest_axes(torch.zeros(1, 3, 3))
    assert float(nothing.norm()) == 1
    assert gaussian_shapes.decomposed(axes[:0])[0].shape == (0, 4)


def test_none_at_all_is_legal():
    field = Gaussians4D(GaussianCloud4D.empty())
    frame = SplatRenderer(background=torch.ones(3)).render(field, camera(0.5), normals=True)
    assert torch.equal(frame.color, torch.ones(33, 40, 3))
    assert len(field.gaussians_at(0.5).means) == 0


def test_examples_in_docstrings():
    assert doctest.testmod(gaussians4d).failed == 0
