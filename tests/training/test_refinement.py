"""Poses and exposures that training learns, on a small scene of known truth; and methods on back
ends without the fused step."""

import math

import pytest
import torch

from lumigraph.core import Cameras, Scene
from lumigraph.core.errors import BackendError, InputError
from lumigraph.core.scene import MemoryImages, cube
from lumigraph.core.transforms import look_at, se3_exp
from lumigraph.fields import GridField, to_grid_space
from lumigraph.renderers import OccupancyGrid, VolumeRenderer
from lumigraph.training import nerf, train_config
from lumigraph.training.image_tables import refined_cameras
from lumigraph.training.method import Progress
from lumigraph.training.nerf import NerfMethod

PIXELS, VIEWS = 32, 12
CPU = torch.device("cpu")


class Blobs:
    """Soft colored balls; a volume field in closed form."""

    bounds, cascades = cube(torch.zeros(3), 2.0), 1

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(2)
        self.centers = torch.rand(9, 3, generator=generator) * 0.7 + 0.15
        self.colors = torch.rand(9, 3, generator=generator)

    def density(self, positions):
        return 60 * self._parts(positions).sum(dim=1)

    def _parts(self, positions):
        square = (positions[:, None] - self.centers).square().sum(dim=-1)
        return torch.exp(-square / (2 * 0.08**2))

    def query(self, positions, directions):
        parts = self._parts(positions) + 1e-9
        return self.density(positions), parts @ self.colors / parts.sum(dim=1, keepdim=True)

    def networks(self):
        return None


def true_cameras(*, pairs: bool = False) -> Cameras:
    """A ring of cameras; with `pairs` the second half stands where the first does."""
    poses = []
    for place in range(VIEWS):
        i = place % (VIEWS // 2) * 2 if pairs else place
        angle, height = 2 * math.pi * i / VIEWS, 1.2 * math.sin(2.5 * i)
        eye = torch.tensor([2.0 * math.cos(angle), 2.0 * math.sin(angle), height])
        poses.append(look_at(eye, torch.zeros(3), up=(0.0, 0.0, 1.0)))
    return Cameras.from_intrinsics(torch.stack(poses), PIXELS, PIXELS, 0.8 * PIXELS)


def build_scene(
    truth: Cameras, *, gains: torch.Tensor | None = None, known: Cameras | None = None
) -> Scene:
    """Pictures from the true cameras, times gains; `known` is what the scene says of them."""
    occupancy = OccupancyGrid(resolution=16, cascades=1, march_steps=128)
    renderer = VolumeRenderer(occupancy, background=torch.zeros(3))
    images = []
    for i in range(VIEWS):
        color = renderer.render(Blobs(), truth[i]).color
        color = color if gains is None else color * gains[i]
        images.append((color.clamp(0, 1) * 255).round().to(torch.uint8))
    return Scene(
        name="blobs",
        source="memory",
        cameras=known or truth,
        images=MemoryImages(images),
        splits={"train": torch.arange(VIEWS)},
        bounds=Blobs.bounds,
        background="black",
    )


def settings(**options):
    small = {
        "steps": 100,
        "levels": 4,
        "features": 2,
        "log2_table_size": 12,
        "base_resolution": 4,
        "max_resolution": 32,
        "hidden_width": 16,
        "grid_resolution": 16,
        "march_steps": 64,
        "batch_samples": 4096,
        "occupancy_samples": 512,
        "random_background": False,
        "device": "cpu",
    }
    return train_config("nerf", "tiny", **{**small, **options})


def train(method: NerfMethod, steps: int) -> list[float]:
    losses = []
    for step in range(steps):
        rate = min(1.0, (step + 1) / 20) * 0.1 ** (step / steps)
        losses.append(float(method.step(Progress(step, rate=rate)).loss))
    return losses


def pose_error(found: Cameras, wanted: Cameras) -> tuple[float, float]:
    """Mean angle in degrees and mean distance, after the best common rigid motion."""
    a, b = found.positions, wanted.positions
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    u, _, v = torch.linalg.svd(b.T @ a)
    flip = torch.diag(torch.tensor([1.0, 1.0, float(torch.sign(torch.det(u @ v)))]))
    rotation = u @ flip @ v
    turned = rotation @ found.camera_to_world[:, :3, :3]
    relative = turned.transpose(1, 2) @ wanted.camera_to_world[:, :3, :3]
    cosine = (relative.diagonal(dim1=1, dim2=2).sum(dim=1) - 1) / 2
    angle = torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).mean()
    return float(angle), float((a @ rotation.T - b).norm(dim=1).mean())


def reprojection_error(found: Cameras, wanted: Cameras) -> float:
    """Mean distance in pixels between where the balls are seen and where they should be."""
    points = Blobs().centers * 2 - 1
    errors = [
        (found.project(points, i)[0] - wanted.project(points, i)[0]).norm(dim=1)
        for i in range(VIEWS)
    ]
    return float(torch.cat(errors).mean())


def test_pose_refinement_brings_cameras_back():
    wanted = true_cameras()
    generator = torch.Generator().manual_seed(7)
    twists = torch.randn(VIEWS, 6, generator=generator) * 0.05
    moved = wanted.with_poses(se3_exp(twists) @ wanted.camera_to_world)
    config = settings(pose_refinement=True, pose_learning_rate=1e-2, max_resolution=16)
    method = NerfMethod(build_scene(wanted, known=moved), config, CPU)
    losses = train(method, 600)
    refined = refined_cameras(method.poses, moved, Blobs.bounds)
    angle, distance = pose_error(moved, wanted)
    new_angle, new_distance = pose_error(refined, wanted)
    assert angle > 4 and distance > 0.1 and reprojection_error(moved, wanted) > 0.8
    assert new_angle < 0.65 * angle and new_distance < 0.7 * distance
    assert reprojection_error(refined, wanted) < 0.55 * reprojection_error(moved, wanted)
    # the mean stays, so that views that were not trained on still fit
    assert torch.allclose(method.poses.motion.mean(dim=0), torch.zeros(6), atol=1e-6)

    fixed = NerfMethod(build_scene(wanted, known=moved), settings(max_resolution=16), CPU)
    assert sum(losses[-50:]) < 0.7 * sum(train(fixed, 600)[-50:])


def test_refined_cameras_are_what_training_saw():
    """The rays of the refined cameras are the moved rays of the method, in the scene frame."""
    cameras = true_cameras()
    method = NerfMethod(build_scene(cameras), settings(pose_refinement=True), CPU)
    with torch.no_grad():
        method.poses.motion += torch.randn(VIEWS, 6) * 0.1
    batch = method.sampler.sample(40, 0)
    origins, directions = method.poses(batch.origins, batch.directions, batch.image_places)
    refined = refined_cameras(method.poses, cameras, Blobs.bounds)
    rays = refined.rays(batch.image_places, batch.pixels)
    assert torch.allclose(to_grid_space(rays.origins, Blobs.bounds), origins, atol=1e-5)
    assert torch.allclose(rays.directions, directions, atol=1e-5)


def test_exposure_finds_the_gains():
    """On pairs of views from one place, so that no color by direction can stand for a gain."""
    half = VIEWS // 2
    generator = torch.Generator().manual_seed(3)
    gains = 0.5 + 0.5 * torch.rand(VIEWS, 3, generator=generator)
    scene = build_scene(true_cameras(pairs=True), gains=gains)
    method = NerfMethod(scene, settings(exposure=True), CPU)
    train(method, 1000)
    found, wanted = method.exposure.log_gain.detach(), gains.log()
    assert torch.allclose(found.mean(dim=0), torch.zeros(3), atol=1e-5)
    found_ratio, wanted_ratio = found[:half] - found[half:], wanted[:half] - wanted[half:]
    assert float(wanted_ratio.abs().mean()) > 0.15
    assert float((found_ratio - wanted_ratio).abs().mean()) < 0.03


@pytest.mark.parametrize("distortion", [0.0, 0.01])
@pytest.mark.parametrize("loss", ["l2", "huber"])
def test_both_kinds_of_step_do_the_same(monkeypatch, loss, distortion):
    """The autograd step with exposures against the fused one, from the same start."""
    config = settings(exposure=True, loss=loss, distortion_weight=distortion)
    scene = build_scene(true_cameras())
    fused, other = NerfMethod(scene, config, CPU), NerfMethod(scene, config, CPU)
    monkeypatch.setattr(other, "_fused_networks", lambda: None)
    for step in range(20):
        results = [method.step(Progress(step, rate=0.1)) for method in (fused, other)]
        assert results[0].rays == results[1].rays
        assert float(results[0].loss) == pytest.approx(float(results[1].loss), rel=1e-3)
    for one, another in zip(fused.field.parameters(), other.field.parameters(), strict=True):
        assert float((one - another).detach().norm() / one.detach().norm()) < 0.05
    first, second = (m.exposure.log_gain.detach() for m in (fused, other))
    assert float(first.abs().max()) > 0
    assert float((first - second).norm() / first.norm()) < 0.1


class ForeignField(GridField):
    """A field that trains but offers no parts for fused steps."""

    def networks(self):
        return None


def test_a_foreign_field_trains_by_autograd(monkeypatch):
    monkeypatch.setattr(nerf, "GridField", ForeignField)
    method = NerfMethod(build_scene(true_cameras()), settings(), CPU)
    before = [p.tensor.detach().clone() for p in method.field.trained_parameters()]
    losses = train(method, 60)
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    for old, new in zip(before, method.field.trained_parameters(), strict=True):
        assert not torch.equal(old, new.tensor)
    assert method.bad_gradients() == 0


def test_foreign_back_ends_are_refused_on_a_cpu():
    scene = build_scene(true_cameras())
    with pytest.raises(BackendError, match="encoder tinycudann needs an NVIDIA GPU"):
        NerfMethod(scene, settings(encoder="tinycudann"), CPU)
    with pytest.raises(InputError, match="nerfacc"):  # not installed, or no GPU
        NerfMethod(scene, settings(sampler="nerfacc"), CPU)
