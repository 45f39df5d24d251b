"""Similarities, rotations and rigid motions: laws that hold for random ones, and their errors."""

import math

import pytest
import torch

from lumigraph.core import InputError, Similarity
from lumigraph.core import transforms as tf


def random_quaternions(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.nn.functional.normalize(
        torch.randn(count, 4, generator=generator, dtype=torch.float64), dim=-1
    )


def random_similarity(seed: int) -> Similarity:
    generator = torch.Generator().manual_seed(seed)
    axis_angle = torch.randn(3, generator=generator, dtype=torch.float64)
    shift = torch.randn(3, generator=generator, dtype=torch.float64) * 100
    return Similarity(0.3 + seed, tf.rotation_exp(axis_angle), shift)


def test_similarity_inverse_and_matrix() -> None:
    move = random_similarity(1)
    points = torch.randn(20, 3, dtype=torch.float64)
    torch.testing.assert_close(move.inverse().apply(move.apply(points)), points)
    matrix = move.to_matrix()
    by_matrix = points @ matrix[:3, :3].T + matrix[:3, 3]
    torch.testing.assert_close(move.apply(points), by_matrix)
    again = Similarity.from_matrix(matrix)
    assert again.scale == pytest.approx(move.scale)
    torch.testing.assert_close(again.apply(points), move.apply(points))
    torch.testing.assert_close(move.compose(move.inverse()).to_matrix(), torch.eye(4).double())


def test_compose_applies_the_argument_first() -> None:
    outer, inner = random_similarity(1), random_similarity(2)
    points = torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(outer.compose(inner).apply(points), outer.apply(inner.apply(points)))


def test_moved_cameras_see_moved_points() -> None:
    move = random_similarity(2)
    pose = tf.look_at(torch.tensor([1.0, 2, 3]), torch.zeros(3), up=[0.0, 0, 1]).double()
    moved = move.apply_poses(pose)
    point = torch.tensor([[0.2, 0.1, -0.4]], dtype=torch.float64)
    local = (point - pose[:3, 3]) @ pose[:3, :3]
    local_moved = (move.apply(point) - moved[:3, 3]) @ moved[:3, :3]
    torch.testing.assert_close(local * move.scale, local_moved)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.diag(torch.tensor([1.0, 2, 1, 1])), "shears or scales its axes differently"),
        (torch.diag(torch.tensor([-1.0, 1, 1, 1])), "determinant is -1, not positive"),
        (torch.zeros(4, 4), "last row"),
        (torch.full((4, 4), math.nan), "must be finite"),
        (torch.eye(3), "needs a 4x4 or 3x4 matrix"),
    ],
)
def test_matrices_that_are_no_similarity(matrix: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Similarity.from_matrix(matrix)


def test_similarity_refuses_bad_parts() -> None:
    with pytest.raises(InputError, match=r"scale .* positive"):
        Similarity(0.0, torch.eye(3), torch.zeros(3))
    with pytest.raises(InputError, match="finite"):
        Similarity(1.0, torch.eye(3), torch.tensor([math.nan, 0, 0]))
    with pytest.raises(InputError, match="orthonormal"):
        Similarity(1.0, 2 * torch.eye(3), torch.zeros(3))
    with pytest.raises(InputError, match=r"rotation must have shape \(3, 3\)"):
        Similarity(1.0, torch.eye(4), torch.zeros(3))


def test_quaternions_and_matrices_are_inverse() -> None:
    quaternions = random_quaternions(200)
    # Half turns have w = 0, where a formula by the trace alone would divide by 0.
    quaternions[:3] = torch.eye(4)[1:].double()
    matrices = tf.rotation_from_quaternion(quaternions)
    torch.testing.assert_close(
        matrices @ matrices.transpose(-1, -2), torch.eye(3).double().expand(200, 3, 3)
    )
    assert bool((torch.linalg.det(matrices) > 0).all())
    back = tf.quaternion_from_rotation(matrices)
    same = (back * quaternions).sum(dim=-1).abs()
    torch.testing.assert_close(same, torch.ones(200).double())


def test_quarter_turn_about_z() -> None:
    half = math.sqrt(0.5)
    matrix = tf.rotation_from_quaternion(torch.tensor([half, 0.0, 0.0, half]))
    torch.testing.assert_close(matrix @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))
    torch.testing.assert_close(tf.rotation_exp(torch.tensor([0.0, 0, math.pi / 2])), matrix)


def test_slerp_ends_middle_and_short_way() -> None:
    first, second = random_quaternions(50), random_quaternions(100)[50:]
    torch.testing.assert_close(tf.slerp(first, second, 0.0), first)
    same = (tf.slerp(first, second, 1.0) * second).sum(dim=-1).abs()
    torch.testing.assert_close(same, torch.ones(50).double())
    middle = tf.slerp(first, second, 0.5)
    torch.testing.assert_close(
        (middle * first).sum(dim=-1).abs(), (middle * second).sum(dim=-1).abs()
    )
    torch.testing.assert_close(tf.slerp(first, -first, 0.3), first)


def test_interpolated_pose() -> None:
    first = torch.eye(4)
    second = tf.se3_exp(torch.tensor([0.0, 0, 1.0, 0, 0, 0]))
    second[:3, 3] = torch.tensor([2.0, 0, 0])
    middle = tf.interpolate_poses(first, second, 0.5)
    torch.testing.assert_close(middle[:3, 3], torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(middle[:3, :3], tf.rotation_exp(torch.tensor([0.0, 0, 0.5])))


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1e-4, 9e-3, 1.1e-2, 1.0, 3.0])
def test_exponential_against_the_matrix_exponential(scale: float) -> None:
    twist = torch.tensor([0.6, -0.64, 0.48, 1.0, 2.0, -3.0], dtype=torch.float64)
    twist[:3] *= scale
    generator = torch.zeros(4, 4, dtype=torch.float64)
    generator[:3, :3] = tf.cross_matrix(twist[:3])
    generator[:3, 3] = twist[3:]
    motion = tf.se3_exp(twist)
    torch.testing.assert_close(motion, torch.linalg.matrix_exp(generator), atol=1e-11, rtol=0)
    torch.testing.assert_close(tf.se3_log(motion), twist, atol=1e-9, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0])
def test_exponential_is_differentiable_at_zero_too(scale: float) -> None:
    twist = (torch.tensor([[0.6, -0.64, 0.48, 1.0, 2.0, -3.0]]).double() * scale).requires_grad_()
    assert torch.autograd.gradcheck(tf.se3_exp, (twist,))
    zero = torch.zeros(3, requires_grad=True)
    gradient = torch.autograd.grad(tf.rotation_exp(zero)[0, 1], zero)[0]
    torch.testing.assert_close(gradient, torch.tensor([0.0, 0.0, -1.0]))


def test_look_at_axes() -> None:
    position = torch.tensor([[3.0, 0, 0], [0, -4, 1], [0, 0, 5]])
    pose = tf.look_at(position, torch.zeros(3), up=[0.0, 0, 1])
    rotation = pose[:, :3, :3]
    torch.testing.assert_close(rotation.transpose(1, 2) @ rotation, torch.eye(3).expand(3, 3, 3))
    assert bool((torch.linalg.det(rotation) > 0).all())
    forward = rotation[:, :, 2]
    torch.testing.assert_close(forward, -position / position.norm(dim=-1, keepdim=True))
    # Image down is world down, where the view is not along it (the last one looks straight down).
    assert bool((rotation[:2, 2, 1] < 0).all())
    with pytest.raises(InputError, match="target must not be the position"):
        tf.look_at(torch.zeros(3), torch.zeros(3), up=[0.0, 0, 1])
