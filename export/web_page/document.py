"""The HTML file: scripts and styles inline, data in blocks that no browser runs, and a policy that
forbids everything else."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from lumigraph.core.errors import InputError
from lumigraph.training.files import write_atomic

LIMIT_MIB = 200.0
"""Larger pages take browsers minutes, or do not open at all."""
_SCRIPTS = {
    "gaussians": (
        "camera.js",
        "controls.js",
        "time.js",
        "shaders.js",
        "unpacking.js",
        "gaussians.js",
    ),
    "pictures": ("controls.js", "time.js", "pictures.js"),
}


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a target before work is spent on it.

    Raises:
        InputError: another suffix than .html, a folder, or a file that may not be replaced.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path}: unknown suffix {path.suffix!r}; a page is written as .html")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; replace it with --overwrite, or name another")


def check_size(path: Path, size: float, *, limit_mib: float, remedy: str) -> None:
    """Refuse a page that is, or will be, too large.

    Raises:
        InputError: naming the sizes and the options that make it smaller.
    """
    if size > limit_mib * 2**20:
        raise InputError(
            f"{path}: not written: it would take {size / 2**20:.1f} MiB, more than the "
            f"{limit_mib:g} MiB of --page-limit-mib; {remedy}, or raise the limit"
        )


def encoded(data: bytes) -> str:
    """Base64."""
    return base64.b64encode(data).decode()


def write_page(path: Path, kind: str, *, title: str, scene: dict[str, Any], data: str = "") -> None:
    """Fill the template and write the file whole or not at all.

    Args:
        kind: "gaussians" or "pictures".
        title: any text.
        scene: JSON values, what the scripts read.
        data: base64, kept apart from the JSON as it is large.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    style = asset("page.css")
    script = '"use strict";\n' + "\n".join(asset(name) for name in _SCRIPTS[kind])
    text = environment.from_string(asset("page.html.jinja")).render(
        title=title,
        kind=kind,
        moves=bool(scene.get("times")),
        names=[view["name"] for view in scene["views"]] if kind == "gaussians" else [],
        policy=_policy(script, style),
        style=style,
        script=script,
        sorter=asset("sorter.js") if kind == "gaussians" else "",
        scene=_json(scene),
        data=data,
    )
    # names of files may hold bytes that are no text
    write_atomic(path, lambda place: place.write_bytes(text.encode("utf-8", "replace")))


def asset(name: str) -> str:
    """A file of this package as text."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that cannot end the element it stands in, whatever the texts in it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(script: str, style: str) -> str:
    """Only this script and this style, workers made by it, and pictures from the page itself."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "worker-src blob:; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{encoded(hashlib.sha256(text.encode()).digest())}"
