"""The GPU's own sort against torch's."""

import pytest
import torch

from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.splatting import radix_sort as module
from lumigraph.cuda.splatting.radix_sort import radix_sort

BACKENDS = ["emu", pytest.param("cuda", marks=pytest.mark.gpu)]
SIZES = [1, 31, 256, 1023, 1024, 1025, 5003]
GPU_SIZES = [100_000, 1_000_003, 3_000_017]


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" else "cpu"


def check(keys: torch.Tensor, bits: int) -> None:
    """Keys and places as a stable sort of the unsigned numbers gives them."""
    if keys.dtype == torch.float32:
        numbers = keys.view(torch.int32).long()
    else:
        numbers = keys.long() & (2**bits - 1)
    order = torch.sort(numbers, stable=True)[1]
    found, places = radix_sort(keys, None, bits=bits)
    assert torch.equal(places.long(), order)
    assert torch.equal(found, keys[order])
    values = torch.randint(-9, 9, keys.shape, dtype=torch.int32, device=keys.device)
    _, moved = radix_sort(keys, values, bits=bits, keep_keys=False)
    assert torch.equal(moved, values[order])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES)
def test_sorts_as_torch_does(size: int, backend: str) -> None:
    torch.manual_seed(size)
    device = device_of(backend)
    with backend_override(backend):
        check(torch.randint(0, 7, (size,), dtype=torch.int16, device=device), 3)
        check(torch.randint(0, 32767, (size,), dtype=torch.int16, device=device), 15)
        check(torch.randint(0, 2**31 - 1, (size,), dtype=torch.int32, device=device), 32)
        depths = torch.rand(size, device=device) * 9
        depths[::3] = torch.inf  # culled
        check(depths, 32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_keys_a_thread(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANY_KEYS", 1)
    torch.manual_seed(0)
    with backend_override(backend):
        check(torch.randint(0, 300, (9001,), dtype=torch.int16, device=device_of(backend)), 9)


@pytest.mark.gpu
@pytest.mark.parametrize("size", GPU_SIZES)
def test_sorts_long_lists(size: int) -> None:
    torch.manual_seed(size)
    for _ in range(3):  # what comes when differs from run to run
        check(torch.rand(size, device="cuda"), 32)
        check(torch.randint(0, 8161, (size,), dtype=torch.int16, device="cuda"), 13)
        check(torch.full((size,), 5, dtype=torch.int16, device="cuda"), 13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("many", [1, 2**19], ids=["many", "few"])
def test_fewer_keys_than_there_is_room_for(
    backend: str, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number is on the device; what stands in the room behind is left alone."""
    monkeypatch.setattr(module, "MANY_KEYS", many)
    torch.manual_seed(2)
    room, device = 9001, device_of(backend)
    keys = torch.randint(0, 300, (room,), dtype=torch.int16, device=device)
    values = torch.randint(-9, 9, (room,), dtype=torch.int32, device=device)
    for count in (0, 1, 1023, 1024, 4097, 9000, 9001, 2**40):
        used = min(count, room)
        counted = torch.tensor([count], device=device)
        with backend_override(backend):
            found, moved = radix_sort(keys, values, bits=9, counted=counted)
        order = torch.sort(keys[:used].long(), stable=True)[1]
        assert torch.equal(found[:used], keys[:used][order])
        assert torch.equal(moved[:used], values[:used][order])
