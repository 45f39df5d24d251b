"""The house rules that a machine can check: packages are listed, rooms import only whom they may,
no file outgrows its limit."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_PACKAGES = {"tests", "examples", "benchmarks", "docs", "build", "dist", "runs", "reports"}
MAY_IMPORT = {
    "core": set(),
    "cuda": {"core"},
    "datasets": {"core"},
    "fields": {"core", "cuda"},
    "renderers": {"core", "cuda", "fields.protocols"},
    "training": {"core", "cuda", "datasets", "fields", "renderers"},
    "export": {"core", "cuda", "datasets", "fields", "renderers", "training"},
    "hardware": {"core"},
    "viewer": {"core", "cuda", "datasets", "fields", "renderers", "training", "export"},
}
MAY_ALSO_IMPORT = {"hardware/recording.py": {"cuda", "fields", "renderers"}}
MOST_LINES = 500


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def package_folders() -> set[Path]:
    roots = [p for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")]
    found = set()
    for root in roots:
        if root.name not in NOT_PACKAGES and not root.name.endswith(".egg-info"):
            found |= {init.parent for init in root.rglob("__init__.py")}
    return found


def python_files() -> list[Path]:
    return sorted(file for folder in package_folders() for file in folder.glob("*.py"))


def test_every_package_is_listed():
    setuptools = project()["tool"]["setuptools"]
    folders = {str(folder.relative_to(ROOT)) for folder in package_folders()}
    assert set(setuptools["package-dir"].values()) == folders
    assert set(setuptools["packages"]) == set(setuptools["package-dir"])


def imported(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module == "lumigraph":
                names += [f"lumigraph.{alias.name}" for alias in node.names]
            else:
                names.append(node.module)
    return names


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_rooms_import_only_whom_they_may(room):
    for file in sorted((ROOT / room).rglob("*.py")):
        also = MAY_ALSO_IMPORT.get(str(file.relative_to(ROOT)), set())
        allowed = MAY_IMPORT[room] | {room} | also
        for name in imported(file):
            if not name.startswith("lumigraph."):
                continue
            target = name.removeprefix("lumigraph.")
            good = any(target == other or target.startswith(f"{other}.") for other in allowed)
            assert good, f"{file.relative_to(ROOT)} imports lumigraph.{target}"


def test_bare_room_names_are_never_imported():
    rooms = set(MAY_IMPORT)
    for file in [*python_files(), *ROOT.glob("tests/**/*.py"), *ROOT.glob("examples/**/*.py")]:
        for name in imported(file):
            assert name.split(".")[0] not in rooms, f"{file.relative_to(ROOT)} imports {name}"


def test_tests_are_no_package():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_file_outgrows_its_limit():
    for file in [*python_files(), *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]:
        lines = len(file.read_text().splitlines())
        assert lines <= MOST_LINES, f"{file.relative_to(ROOT)} has {lines} lines"
