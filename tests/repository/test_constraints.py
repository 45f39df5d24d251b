"""constraints.txt names the tested version of all that an installation asks for."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTED_EXTRAS = ("test", "sfm", "geometry", "mesh", "fitting", "viewer", "hardware")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    rows = [line for line in lines if line and not line.startswith("#")]
    for row in rows:
        assert re.fullmatch(r"[\w.-]+==[\w.]+", row), f"not NAME==VERSION: {row}"
    return {plain(name): version for name, _, version in (row.partition("==") for row in rows)}


@pytest.mark.parametrize("extra", ["", *TESTED_EXTRAS])
def test_what_is_asked_for_is_pinned(extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    versions = pinned()
    for requirement in wanted:
        name = re.match(r"[\w.-]+", requirement)
        assert name and plain(name[0]) in versions, f"{requirement}: not in constraints.txt"


def test_torch_is_the_tested_one():
    assert pinned()["torch"] == "2.13.0"
