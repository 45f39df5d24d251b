"""The tables of docs/training.md, from the settings themselves.

    python docs/make_tables.py

after a change of settings or presets; a test compares the page with them.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import typing
from pathlib import Path

from lumigraph.training import PRESETS, TrainConfig, config, train_config

PAGE = Path(__file__).with_name("training.md")
SIZES = [size for method, size in PRESETS if method == "nerf"]


def presets_table() -> str:
    """Settings in which the presets differ."""
    presets = [train_config("nerf", size).to_dict() for size in SIZES]
    rows = [f"| setting | {' | '.join(f'`{size}`' for size in SIZES)} |", "|---" * 4 + "|"]
    for name in presets[0]:
        values = [shown(preset[name]) for preset in presets]
        if name != "preset" and len(set(values)) > 1:
            rows.append(f"| `{name}` | {' | '.join(values)} |")
    return "\n".join(rows)


def settings_table() -> str:
    """Every setting: its default, what it may be, what it means."""
    ranges = {name: (low, high) for name, low, high in config._RANGES}
    hints = typing.get_type_hints(TrainConfig)
    meanings = attribute_docstrings()
    rows = ["| setting | `tiny` | may be | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(TrainConfig):
        allowed = choices(hints[field.name])
        if not allowed and field.name in ranges:
            low, high = ranges[field.name]
            allowed = f"{shown(low)} to {shown(high)}"
        meaning = " ".join(meanings[field.name].split()).replace("|", "\\|")
        rows.append(f"| `{field.name}` | {shown(field.default)} | {allowed} | {meaning} |")
    return "\n".join(rows)


def choices(hint: typing.Any) -> str:
    """The words of a Literal, or yes and no."""
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{word}`" for word in typing.get_args(hint))
    return "true, false" if hint is bool else ""


def shown(value: object) -> str:
    """A value as short as it can be read: 131072 is 2^17."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        whole = int(value) if float(value).is_integer() else 0
        if whole >= 2**12 and whole & (whole - 1) == 0:
            return f"2^{whole.bit_length() - 1}"
        return f"{value:g}" if isinstance(value, float) else str(value)
    return f"`{value}`"


def attribute_docstrings() -> dict[str, str]:
    """Name -> the string below each attribute of TrainConfig."""
    body = ast.parse(inspect.getsource(TrainConfig)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name) and isinstance(text.value, ast.Constant)
            found[field.target.id] = str(text.value.value)
    return found


def filled(page: str) -> str:
    """The page with both tables between their marks."""
    for name, table in (("presets", presets_table()), ("settings", settings_table())):
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        page, count = re.subn(pattern, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", page, flags=re.S)
        assert count == 1, f"training.md: marks of the table {name!r} not found"
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
