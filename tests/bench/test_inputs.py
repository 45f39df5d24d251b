"""The benchmark inputs are those that the peers were recorded with."""

import hashlib

import pytest
import torch

from lumigraph.bench import inputs

# sha256 of the little-endian bytes, computed once from the protocol's own generators
CHECKSUMS = {
    "points_uniform": "d50cecde0fcf7f33",
    "points_uniform 4-D": "8490bbe91a60dcff",
    "points_rays": "78747fc5a3a605c7",
    "points_rays 48": "d62fc039ebd5678c",
    "occupancy_cells 32": "05bf4c094cfe518d",
    "occupancy_cells 128": "5d0a2cf831007920",
    "camera_rays origins": "73720e593734cfec",
    "camera_rays directions": "9272f4a87a56c706",
    "shade_rays": "47d1ca7363b6de2e",
}
# torch sums a norm in another order without wide registers
SCALAR_CHECKSUMS = {
    "points_rays": "bd6b1bd46d6db58c",
    "points_rays 48": "3d3e6a18b9451d30",
    "camera_rays origins": "6fa60647f66d6dac",
    "camera_rays directions": "c212c6f16d474608",
    "shade_rays": "9be2dcde7709304d",
}


def generated() -> dict[str, torch.Tensor]:
    origins, directions = inputs.camera_rays(1000, seed=7)
    return {
        "points_uniform": inputs.points_uniform(1000, seed=3),
        "points_uniform 4-D": inputs.points_uniform(1000, seed=3, dimensions=4),
        "points_rays": inputs.points_rays(1000, seed=5),
        "points_rays 48": inputs.points_rays(1000, seed=5, per_ray=48),
        "occupancy_cells 32": inputs.occupancy_cells(32),
        "occupancy_cells 128": inputs.occupancy_cells(128),
        "camera_rays origins": origins,
        "camera_rays directions": directions,
        "shade_rays": inputs.shade_rays(origins, directions),
    }


def checksum(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]


def test_bytes_are_those_of_the_protocol():
    known = {**CHECKSUMS}
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "DEFAULT":
        known |= SCALAR_CHECKSUMS
    elif capability not in ("AVX2", "AVX512"):
        pytest.skip(f"no checksums were recorded for {capability}")
    assert {name: checksum(tensor) for name, tensor in generated().items()} == known


def test_points_lie_in_the_cube_ray_after_ray():
    points = inputs.points_rays(256, seed=1, per_ray=64)
    assert float(points.min()) > 0 and float(points.max()) < 1
    steps = points.reshape(4, 64, 3).diff(dim=1)
    assert torch.allclose(steps, steps[:, :1].expand_as(steps), atol=1e-5)


def test_rays_that_hit_stop_in_occupied_cells():
    origins, directions = inputs.camera_rays(2000, seed=2)
    color, hit = inputs.first_hits(origins, directions)
    assert 0.1 < float(hit.float().mean()) < 0.6
    assert bool((color[~hit] == 1).all()) and 0 <= float(color.min()) < float(color.max()) <= 1
    along = torch.linspace(2.4, 5.6, 600)
    points = origins[:, None] + along[:, None] * directions[:, None]
    cells = inputs.occupancy_cells(64)
    place = ((points + inputs.HALF_SIDE) / 3 * 64).long()
    inside = ((place >= 0) & (place < 64)).all(-1)
    x, y, z = place.clamp(0, 63).unbind(-1)
    meets = (cells[x, y, z] & inside).any(1)
    assert bool(meets[hit].all())
    assert float(meets[~hit].float().mean()) < 0.2  # only those that pass a surface closely


def test_scene_shows_what_its_rays_see():
    scene = inputs.benchmark_scene(size=12, train=3, test=2)
    assert len(scene.images) == 5 and scene.split("test").tolist() == [3, 4]
    assert len({tuple(p.tolist()) for p in scene.cameras.positions}) == 5
    rays = scene.cameras.image_rays(1)
    color, hit = inputs.first_hits(rays.origins, rays.directions)
    image = scene.images.load(1).reshape(-1, 4)
    assert torch.equal(image[:, 3] == 255, hit)
    assert float((image[:, :3] / 255 - color).abs().max()) <= 0.5 / 255 + 1e-6
