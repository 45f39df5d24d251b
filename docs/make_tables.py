"""The tables of docs/training.md, from the settings themselves.

    python docs/make_tables.py

after a change of settings or presets; a test compares the page with them.
"""

from __future__ import annotations

import ast
import inspect
import re
import typing
from pathlib import Path

from lumigraph.training import PRESETS, RunConfig, train_config
from lumigraph.training.config import CONFIGS
from lumigraph.training.config_run import setting_types

PAGE = Path(__file__).with_name("training.md")
SHARED = list(setting_types(RunConfig))


def tables() -> dict[str, str]:
    """Mark on the page -> table."""
    found = {"settings": settings_table(RunConfig, SHARED)}
    for method, kind in CONFIGS.items():
        found[f"presets {method}"] = presets_table(method)
        told = shared_with_others(kind)
        own = [name for name in setting_types(kind) if name not in told]
        found[f"settings {method}"] = settings_table(kind, own)
    return found


def shared_with_others(kind: type[RunConfig]) -> list[str]:
    """Settings that stand in the table of all, or in that of an earlier method and mean the same
    here."""
    told = list(SHARED)
    for other in CONFIGS.values():
        if other is kind:
            break
        for base in other.__mro__[1:]:
            if base in kind.__mro__ and issubclass(base, RunConfig):
                told += [name for name in setting_types(base) if name not in kind.__annotations__]
    return told


def presets_table(method: str) -> str:
    """Settings in which the presets of a method differ."""
    sizes = [size for other, size in PRESETS if other == method]
    presets = [train_config(method, size).to_dict() for size in sizes]
    rows = [f"| setting | {' | '.join(f'`{size}`' for size in sizes)} |", "|---" * 4 + "|"]
    for name in presets[0]:
        values = [shown(preset[name]) for preset in presets]
        if name != "preset" and len(set(values)) > 1:
            rows.append(f"| `{name}` | {' | '.join(values)} |")
    return "\n".join(rows)


def settings_table(kind: type[RunConfig], names: list[str]) -> str:
    """Settings: the default, what each may be, what it means."""
    hints, meanings = setting_types(kind), attribute_docstrings(kind)
    rows = ["| setting | default | may be | meaning |", "|---|---|---|---|"]
    for name in names:
        allowed = choices(hints[name])
        if name == "method":
            allowed = ", ".join(f"`{method}`" for method in CONFIGS)
        elif not allowed and name in kind.RANGES:
            low, high = kind.RANGES[name]
            allowed = f"{shown(low)} to {shown(high)}"
        meaning = " ".join(meanings[name].split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {default(kind, name)} | {allowed} | {meaning} |")
    return "\n".join(rows)


def default(kind: type[RunConfig], name: str) -> str:
    """What `train_config` takes with preset `tiny`, or that it depends on method or preset."""
    if name in ("method", "preset"):
        return shown(getattr(train_config(), name))
    methods = [method for method, other in CONFIGS.items() if issubclass(other, kind)]
    presets = [train_config(method, size) for method, size in PRESETS if method in methods]
    values = {shown(getattr(preset, name)) for preset in presets}
    return values.pop() if len(values) == 1 else "by preset"


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


def attribute_docstrings(kind: type[RunConfig]) -> dict[str, str]:
    """Name -> the string below each attribute that a class declares, or inherits."""
    found: dict[str, str] = {}
    for parent in kind.__bases__:
        if issubclass(parent, RunConfig):
            found |= attribute_docstrings(parent)
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name) and isinstance(text.value, ast.Constant)
            found[field.target.id] = str(text.value.value)
    return found


def filled(page: str) -> str:
    """The page with every table between its marks."""
    for name, table in tables().items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        page, count = re.subn(pattern, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", page, flags=re.S)
        assert count == 1, f"training.md: marks of the table {name!r} not found"
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
