"""Symbolic shape checks: one call at a border checks kind, sizes, dtype and device of tensors.

A shape is a string of sizes: a number must match, a letter or word binds on first use and must
match afterwards, ``_`` matches any size, and a leading ``...`` matches any leading sizes.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from lumigraph.core.errors import InputError

ShapeCheck = tuple[str, Tensor | None, str]


def check_shapes(
    *checks: ShapeCheck,
    dtype: torch.dtype | tuple[torch.dtype, ...] | None = None,
    device: torch.device | str | None = None,
) -> dict[str, int]:
    """Check tensors against symbolic shapes that share their letters.

    Args:
        checks: triples of argument name, tensor and shape such as ``"N 3"``; a tensor that is
            None is skipped (an optional argument that was not given).
        dtype: the dtype, or the dtypes to choose from, of every tensor; None takes any.
        device: the device of every tensor; None asks only that all are on the same one.

    Returns:
        The size that each letter was bound to.

    Raises:
        InputError: names the argument, what was expected and what came.

    >>> check_shapes(("x", torch.zeros(5, 3), "N 3"), ("t", torch.zeros(5), "N"))
    {'N': 5}
    >>> check_shapes(("x", torch.zeros(5, 2), "N 3"))
    Traceback (most recent call last):
    lumigraph.core.errors.InputError: x must have shape (N, 3); got (5, 2)
    """
    bound: dict[str, int] = {}
    home = None if device is None else torch.device(device)
    for name, tensor, shape in checks:
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise InputError(f"{name} must be a torch tensor; got {type(tensor).__name__}")
        _check_sizes(name, tensor, _parsed(shape), bound)
        if dtype is not None and tensor.dtype != dtype:
            _check_dtype(name, tensor, dtype)
        place = tensor.device
        if home is None:
            home = place
        elif home != place and not _same_device(home, place):
            raise InputError(f"{name} must be on device {home}; got {place}")
    return bound


@functools.lru_cache(maxsize=1024)
def _parsed(shape: str) -> tuple[tuple[str, int | None], ...]:
    """Each size as written, and its number where it is one."""
    return tuple((size, int(size) if size.isdecimal() else None) for size in shape.split())


def _check_sizes(
    name: str, tensor: Tensor, expected: tuple[tuple[str, int | None], ...], bound: dict[str, int]
) -> None:
    earlier = bound.copy()
    sizes, fixed = tensor.shape, expected
    if expected and expected[0][0] == "...":
        fixed = expected[1:]
        sizes = sizes[max(0, len(sizes) - len(fixed)) :]
    if len(sizes) != len(fixed):
        raise InputError(_message(name, tensor, expected, earlier))
    for (letter, number), size in zip(fixed, sizes, strict=True):
        if number is None:
            number = size if letter == "_" else bound.setdefault(letter, size)
        if size != number:
            raise InputError(_message(name, tensor, expected, earlier))


def _message(
    name: str, tensor: Tensor, sizes: tuple[tuple[str, int | None], ...], bound: dict[str, int]
) -> str:
    letters = [letter for letter, _ in sizes]
    expected = ", ".join(letters) + ("," if len(letters) == 1 else "")
    known = ", ".join(f"{letter} = {bound[letter]}" for letter in letters if letter in bound)
    hint = f" with {known}" if known else ""
    return f"{name} must have shape ({expected}){hint}; got {tuple(tensor.shape)}"


def _check_dtype(name: str, tensor: Tensor, dtype: torch.dtype | tuple[torch.dtype, ...]) -> None:
    allowed = dtype if isinstance(dtype, tuple) else (dtype,)
    if tensor.dtype not in allowed:
        names = " or ".join(str(item).removeprefix("torch.") for item in allowed)
        came = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"{name} must be {names}; got {came}")


def _same_device(first: torch.device, second: torch.device) -> bool:
    if first.type != second.type:
        return False
    # "cuda" without an index stands for any CUDA device.
    return first.index is None or second.index is None or first.index == second.index
