"""Rigid motions of grid space: six numbers for a rotation, the pivot, the optimizer."""

import torch

from lumigraph.core.transforms import rotation_exp
from lumigraph.training.rigid_motion import RigidMotion, moved_rays, rotation_from_six

CPU = torch.device("cpu")


def test_six_numbers_are_a_rotation_and_its_first_columns():
    six = torch.randn(50, 6, dtype=torch.float64, requires_grad=True)
    rotation = rotation_from_six(six)
    eye = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    assert torch.allclose(rotation @ rotation.mT, eye, atol=1e-12)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(50, dtype=torch.float64))
    again = rotation_from_six(rotation.mT[:, :2].reshape(50, 6))
    assert torch.allclose(again, rotation, atol=1e-12)
    assert torch.autograd.gradcheck(rotation_from_six, six[:3])


def test_a_motion_turns_about_its_pivot_and_stands_still_again():
    motion, pivot = RigidMotion(CPU), torch.tensor([0.2, 0.3, 0.4])
    motion.restart(pivot)
    assert torch.equal(motion.matrix().detach(), torch.eye(4))
    turn = rotation_exp(torch.tensor([0.0, 0.5, 0.0]))
    with torch.no_grad():
        motion.values.copy_(torch.cat([turn.T[:2].reshape(6), torch.tensor([0.1, 0.0, 0.0])]))
    origins, directions = moved_rays(motion.matrix(), pivot[None], torch.eye(3)[:1])
    assert torch.allclose(origins[0], pivot + torch.tensor([0.1, 0.0, 0.0]), atol=1e-6)
    assert torch.allclose(directions[0], turn[:, 0], atol=1e-6)


def test_the_optimizer_finds_a_motion_of_points():
    motion, bad = RigidMotion(CPU), torch.zeros(1, dtype=torch.int32)
    points = torch.rand(40, 3)
    turn = rotation_exp(torch.tensor([0.1, -0.2, 0.3]))
    wanted = (points - 0.5) @ turn.T + 0.5 + torch.tensor([0.05, -0.1, 0.0])
    for step in range(300):
        found, _ = moved_rays(motion.matrix(), points, points)
        (found - wanted).square().sum().backward()
        motion.step(1e-2 * 0.98**step, bad)
    assert motion.steps == 300 and int(bad) == 0
    assert float((found - wanted).detach().abs().max()) < 2e-3
    motion.values.grad = torch.full((9,), torch.nan)
    before = motion.values.detach().clone()
    motion.step(1e-2, bad)
    assert int(bad) == 9 and bool(motion.values.isfinite().all())
    assert (
        motion.values.grad is None and float((motion.values.detach() - before).abs().max()) < 0.05
    )
