"""Media: built in, from files, between their voxels; and what is refused."""

import numpy as np
import pytest
import torch

from lumigraph.core.errors import DataError, InputError
from lumigraph.datasets.targets import Medium, load_medium


@pytest.mark.parametrize("name", ["cloud", "fog"])
def test_built_in_media_are_seeded(name):
    first, second = (load_medium(f"builtin:{name}").target for _ in range(2))
    other = load_medium(f"builtin:{name}", seed=1).target
    assert torch.equal(first.density, second.density)
    assert not torch.equal(first.density, other.density)
    assert 5 < first.peak <= 20 and float(first.density.min()) == 0
    assert 0.7 < float(first.albedo.min()) < float(first.albedo.max()) < 1
    shell = [first.density[0], first.density[:, -1], first.density[..., -1]]
    assert max(float(face.max()) for face in shell) < 0.1 * first.peak


def test_values_are_those_of_the_voxels_at_their_middles():
    density, albedo = torch.rand(4, 8, 2), torch.rand(4, 8, 2, 3)
    medium = Medium(density, albedo)
    assert medium.extent.tolist() == [0.5, 1.0, 0.25]
    x, y, z = torch.meshgrid(torch.arange(4), torch.arange(8), torch.arange(2), indexing="ij")
    middles = torch.stack([0.25 + (x + 0.5) / 8, (y + 0.5) / 8, 0.375 + (z + 0.5) / 8], dim=-1)
    found, shade = medium.sample(middles.reshape(-1, 3))
    assert torch.allclose(found, density.reshape(-1), atol=1e-5)
    assert torch.allclose(shade, albedo.reshape(-1, 3), atol=1e-5)
    between = medium.sample(middles[1:3, 0, 0].mean(0, keepdim=True))[0]
    assert float(between) == pytest.approx(float(density[1:3, 0, 0].mean()), abs=1e-5)
    assert medium.sample(torch.tensor([[0.2, 0.5, 0.5], [0.5, 0.5, 0.65]]))[0].tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(16, 16, 16), (40, 12, 7), (2, 2, 2), (70, 70, 3)])
def test_majorants_hold_for_every_point(shape):
    density = torch.rand(shape) ** 8
    medium = Medium(density, torch.full((*shape, 3), 0.5))
    cells = medium.majorants
    points = torch.rand(20_000, 3)
    x, y, z = (points * len(cells)).long().clamp(max=len(cells) - 1).unbind(1)
    assert bool((medium.sample(points)[0] <= cells[x, y, z] + 1e-5).all())
    assert float(cells.max()) == pytest.approx(medium.peak)


def test_files_of_numpy_are_read(tmp_path):
    density = np.random.default_rng(0).random((5, 6, 7))
    np.save(tmp_path / "plain.npy", density)
    scene = load_medium(tmp_path / "plain.npy", density_scale=3.0)
    assert np.allclose(scene.target.density.numpy(), 3 * density)
    assert scene.side == 2.0 and scene.name == "plain"
    assert float(scene.target.albedo.min()) == pytest.approx(0.9)
    four = np.random.default_rng(1).random((5, 6, 7, 4))
    np.save(tmp_path / "four.npy", four)
    assert np.allclose(load_medium(tmp_path / "four.npy").target.albedo.numpy(), four[..., 1:])
    np.savez(tmp_path / "both.npz", density=density, albedo=four[..., 1:])
    both = load_medium(tmp_path / "both.npz").target
    assert np.allclose(both.albedo.numpy(), four[..., 1:])


def test_what_is_no_medium_is_refused_in_one_line(tmp_path):
    good = np.ones((3, 3, 3))
    broken = good.copy()
    broken[1, 1, 1] = np.nan
    cases = {
        "flat": (np.ones((4, 4)), "expected numbers"),
        "thin": (np.ones((4, 4, 1)), "at least 2 along each axis"),
        "text": (np.full((3, 3, 3), "a"), "expected numbers"),
        "nan": (broken, "some densities are not finite"),
        "negative": (-good, "densities begin at -1"),
        "empty": (0 * good, "all densities are 0"),
        "bright": (np.full((3, 3, 3, 4), 2.0), "albedos reach from 2 to 2"),
    }
    for name, (values, reason) in cases.items():
        np.save(tmp_path / f"{name}.npy", values)
        with pytest.raises(DataError, match=reason) as caught:
            load_medium(tmp_path / f"{name}.npy")
        assert "\n" not in str(caught.value) and name in str(caught.value)
    np.savez(tmp_path / "other.npz", heat=good)
    np.savez(tmp_path / "shape.npz", density=good, albedo=np.ones((3, 3, 3)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:60])
    (tmp_path / "x.vdb").write_bytes(b"")
    for path, kind, reason in (
        (tmp_path / "other.npz", DataError, "holds heat; expected `density`"),
        (tmp_path / "shape.npz", DataError, r"albedos are \(3, 3, 3\)"),
        (tmp_path / "cut.npz", DataError, "not a readable NumPy file"),
        (tmp_path / "x.vdb", InputError, "OpenVDB files cannot be read.*npz"),
        (tmp_path / "x.txt", DataError, "no such file"),
        (tmp_path, InputError, "is a folder"),
        ("builtin:smoke", DataError, "available: builtin:cloud, builtin:fog"),
    ):
        with pytest.raises(kind, match=reason):
            load_medium(path)
