"""Which cameras train and which test: the split a folder gives, or every n-th by name.

The usual protocol of real captures takes every 8th image by sorted name, the first one included.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lumigraph.core.errors import DataError

DEFAULT_SPLIT_EVERY = 8


def split_every_nth(names: Sequence[str], every: int) -> dict[str, Tensor]:
    """Every n-th name, sorted, to 'test', the first included, the others to 'train'.

    Args:
        names: One name per camera; cameras of one name stay together.
        every: Step; 0 puts all cameras into 'train' and none into 'test'.

    Example:
        >>> split_every_nth(["b", "a", "c"], 2)["test"].tolist()
        [1, 2]
    """
    chosen = set(sorted(set(names))[::every]) if every else set()
    train = [camera for camera, name in enumerate(names) if name not in chosen]
    test = [camera for camera, name in enumerate(names) if name in chosen]
    return {"train": _indices(train), "test": _indices(test)}


def split_by_label(labels: Sequence[str | None]) -> dict[str, Tensor]:
    """One entry per label in order of appearance; cameras without a label go to 'train'."""
    groups: dict[str, list[int]] = {"train": [], "test": []}
    for camera, label in enumerate(labels):
        groups.setdefault(label or "train", []).append(camera)
    return {name: _indices(cameras) for name, cameras in groups.items()}


def choose_splits(
    names: Sequence[str], labels: Sequence[str | None], *, every: int | None, source: object
) -> dict[str, Tensor]:
    """Splits of a scene; `every` given by the user overrides the labels of the files.

    Raises a `DataError` when no image is left to train on.
    """
    if every is None and any(labels):
        splits = split_by_label(labels)
        way_out = "check the split the files give, or pass split_every=8 to make another"
    else:
        every = DEFAULT_SPLIT_EVERY if every is None else every
        splits = split_every_nth(names, every)
        way_out = "use a larger split_every, or 0 to train on every image"
    require_training_images(splits, source=source, way_out=way_out)
    return splits


def require_training_images(splits: Mapping[str, Tensor], *, source: object, way_out: str) -> None:
    """Refuse a scene whose 'train' split is empty."""
    if len(splits["train"]) == 0:
        counts = ", ".join(f"{name} {len(cameras)}" for name, cameras in splits.items())
        raise DataError(f"{source}: no training images after the split ({counts}); {way_out}")


def _indices(cameras: list[int]) -> Tensor:
    return torch.tensor(cameras, dtype=torch.int64)
