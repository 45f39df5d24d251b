"""Train and test images: every n-th by name, labels, and what is refused."""

import pytest

from lumigraph.core.errors import DataError
from lumigraph.datasets.splits import choose_splits, split_by_label, split_every_nth


def as_lists(splits) -> dict[str, list[int]]:
    return {name: cameras.tolist() for name, cameras in splits.items()}


def test_every_nth_counts_in_name_order_and_takes_the_first() -> None:
    names = [f"{9 - index}.png" for index in range(9)]
    assert as_lists(split_every_nth(names, 8)) == {"train": [1, 2, 3, 4, 5, 6, 7], "test": [0, 8]}


def test_zero_trains_on_everything() -> None:
    assert as_lists(split_every_nth(["a", "b"], 0)) == {"train": [0, 1], "test": []}


def test_labels_group_and_default_to_train() -> None:
    labels = ["test", None, "val", "train"]
    assert as_lists(split_by_label(labels)) == {"train": [1, 3], "test": [0], "val": [2]}


def test_default_is_every_eighth_without_labels() -> None:
    names = [f"{index:02d}" for index in range(17)]
    splits = choose_splits(names, [None] * 17, every=None, source="x")
    assert splits["test"].tolist() == [0, 8, 16]
    assert sorted(splits["train"].tolist() + splits["test"].tolist()) == list(range(17))


def test_a_step_overrides_labels() -> None:
    splits = choose_splits(["a", "b"], ["test", "train"], every=0, source="x")
    assert splits["train"].tolist() == [0, 1]


def test_single_image_without_training_image() -> None:
    with pytest.raises(DataError, match=r"somewhere: no training images .* use a larger"):
        choose_splits(["a"], [None], every=None, source="somewhere")


def test_named_views_override_labels_and_count_in_name_order() -> None:
    names = ["b", "a", "c", "a"]
    splits = choose_splits(names, ["test"] * 4, every=None, views=[0, 2], source="folder")
    assert splits["test"].tolist() == [1, 2, 3] and splits["train"].tolist() == [0]
    with pytest.raises(DataError, match="no training images.*name fewer test_views"):
        choose_splits(names, [None] * 4, every=None, views=[0, 1, 2], source="folder")
