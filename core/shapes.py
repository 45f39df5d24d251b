"""Symbolic shape checks: one call at a border checks kind, sizes, dtype and device of tensors.

A shape is a string of sizes: a number must match, a letter or word binds on first use and must
match afterwards, ``_`` matches any size, and a leading ``...`` matches any leading sizes.
"""

from __future__ import annotations

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
        _check_sizes(name, tensor, shape.split(), bound)
        _check_dtype(name, tensor, dtype)
        if home is None:
            home = tensor.device
        elif not _same_device(home, tensor.device):
            raise InputError(f"{name} must be on device {home}; got {tensor.device}")
    return bound


def _check_sizes(name: str, tensor: Tensor, letters: list[str], bound: dict[str, int]) -> None:
    earlier = dict(bound)
    sizes = tuple(tensor.shape)
    fixed = letters
    if letters[:1] == ["..."]:
        fixed = letters[1:]
        sizes = sizes[max(0, len(sizes) - len(fixed)) :]
    if len(sizes) != len(fixed):
        raise InputError(_message(name, tensor, letters, earlier))
    for letter, size in zip(fixed, sizes, strict=True):
        if letter == "_":
            continue
        expected = int(letter) if letter.isdecimal() else bound.setdefault(letter, size)
        if size != expected:
            raise InputError(_message(name, tensor, letters, earlier))


def _message(name: str, tensor: Tensor, letters: list[str], bound: dict[str, int]) -> str:
    expected = ", ".join(letters) + ("," if len(letters) == 1 else "")
    known = ", ".join(f"{letter} = {bound[letter]}" for letter in letters if letter in bound)
    hint = f" with {known}" if known else ""
    return f"{name} must have shape ({expected}){hint}; got {tuple(tensor.shape)}"


def _check_dtype(
    name: str, tensor: Tensor, dtype: torch.dtype | tuple[torch.dtype, ...] | None
) -> None:
    if dtype is None:
        return
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
