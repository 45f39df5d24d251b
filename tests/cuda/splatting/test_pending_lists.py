"""Tile lists that need more room than there was, and those that remember how much they needed."""

import pytest
import torch

from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.ops import SplatOptions, render_gaussians, splat_tiles
from lumigraph.cuda.splatting import pending_lists

BACKENDS = ["emu", pytest.param("cuda", marks=pytest.mark.gpu)]
NAMES = ("means", "rotations", "scales", "opacities", "harmonics")
COUNT, WIDTH, HEIGHT = 300, 130, 70


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" else "cpu"


@pytest.fixture(autouse=True)
def fresh_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_lists, "_lately", {})


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_lists, "ROOM_PER_SPLAT", 0)
    monkeypatch.setattr(pending_lists, "ROOM_UNIT", 100)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rooms that lists were written into."""
    rooms: list[int] = []
    real = pending_lists.PendingLists._write

    def write(lists: pending_lists.PendingLists, room: int, *scratch: torch.Tensor) -> None:
        rooms.append(room)
        real(lists, room, *scratch)

    monkeypatch.setattr(pending_lists.PendingLists, "_write", write)
    return rooms


def splats_and_depths() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    splats = torch.zeros(COUNT, 12)
    splats[:, :2] = torch.rand(COUNT, 2) * torch.tensor([WIDTH, HEIGHT])
    splats[:, 2] = splats[:, 4] = 0.01  # a standard deviation of 10 pixels
    splats[:, 5] = 0.9
    splats[:, 10:] = 35.0
    return splats, torch.rand(COUNT) + 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_lists_that_need_more_room_are_written_again(no_room, written, backend: str) -> None:
    splats, depths = splats_and_depths()
    with backend_override("torch"):
        expected = splat_tiles(splats.double(), depths.double(), WIDTH, HEIGHT)
    device = device_of(backend)
    for _ in range(3):
        with backend_override(backend):
            found = splat_tiles(splats.to(device), depths.to(device), WIDTH, HEIGHT)
        assert torch.equal(found.starts.cpu(), expected.starts)
        assert torch.equal(found.ids.cpu(), expected.ids)
    pairs = len(expected.ids)
    assert written[:2] == [100, pairs], "too little room, then as much as is needed"
    assert len(written) == 4 and min(written[2:]) > pairs, "later calls know"


@pytest.mark.parametrize("backend", BACKENDS)
def test_pictures_are_blended_again(scenes, no_room, written, backend: str) -> None:
    """A picture and its gradients do not depend on how much room its lists found."""
    scene = scenes.random(200, size=(50, 37), bands=2)
    results = []
    for _ in range(2):
        leaves, camera = scene.on(device_of(backend))
        options = SplatOptions(depth=True)
        with backend_override(backend):
            images = render_gaussians(*(leaves[name] for name in NAMES), camera, options)
            (images.color.sum() + images.depth.sum()).backward()
        results.append([images.color, images.depth, *(leaves[name].grad for name in NAMES)])
    assert len(written) == 3, "twice for the first picture, once for the second"
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_sizes_are_not_remembered_for_ever(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_lists, "MOST_NOTES", 3)
    splats, depths = (tensor.to(device_of(backend)) for tensor in splats_and_depths())
    with backend_override(backend):
        for width in range(16, 16 * 9, 16):
            splat_tiles(splats, depths, width, 16)
            assert len(pending_lists._lately) <= 3
