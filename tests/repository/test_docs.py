"""The manual is held to the code: links lead somewhere, marked Python runs, command lines parse,
tables of settings are those of the settings."""

import json
import re
import runpy
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from lumigraph.cli.commands import COMMANDS
from lumigraph.cli.parsing import UsageError, parse

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
RUNNABLE = re.compile(
    r"<!-- runnable(?:, in tests with: (.*?))? -->\n```python\n(.*?)^```", re.M | re.S
)
INLINE = re.compile(r"`(lumigraph [^`\n]+)`")
COMMAND_LINE = re.compile(r"(?:^|&& )(lumigraph [^\n]*)", re.M)
PLACEHOLDERS = {"COMMAND"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Addresses of the headings of a page, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{name_of(page)}: {target} does not exist"
        assert linked.is_relative_to(ROOT), f"{name_of(page)}: {target} leaves the repository"
        if anchor:
            assert anchor in anchors(linked), f"{name_of(page)}: no heading for {target}"


def runnable_blocks():
    for page in PAGES:
        for number, match in enumerate(RUNNABLE.finditer(page.read_text())):
            yield pytest.param(match[1] or "", match[2], id=f"{name_of(page)}-{number}")


@pytest.mark.parametrize(("changes", "code"), list(runnable_blocks()))
def test_marked_python_runs(changes, code, tmp_path, monkeypatch):
    """Blocks after `<!-- runnable -->`; what takes long is changed as the mark says:
    `<!-- runnable, in tests with: seconds=45 -> steps=3; frames=72 -> frames=2 -->`."""
    for change in filter(None, changes.split("; ")):
        before, after = change.split(" -> ")
        assert before in code, f"the block holds no {before!r}"
        code = code.replace(before, after)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "block", "exec"), {"__name__": "block"})


def test_front_page_has_a_runnable_block():
    assert RUNNABLE.search((ROOT / "README.md").read_text())


def command_lines(page: Path) -> list[str]:
    """`lumigraph ...` in code blocks, fenced or indented, and in code spans."""
    text = page.read_text()
    blocks = [match[2] for match in FENCE.finditer(text) if match[1] in ("", "bash", "console")]
    rest = FENCE.sub("", text)
    blocks.append("\n".join(re.findall(r"^ {4}(\S.*)$", rest, re.M)))
    lines = [line for block in blocks for line in COMMAND_LINE.findall(block)]
    return lines + INLINE.findall(rest)


def all_command_lines():
    for page in PAGES:
        for line in command_lines(page):
            yield pytest.param(line, id=f"{name_of(page)}: {line[:50]}")


@pytest.mark.parametrize("line", list(all_command_lines()))
def test_command_lines_parse(line):
    words = shlex.split(line, comments=True)[1:]
    if words[0] in PLACEHOLDERS or words[0] in ("--help", "--version"):
        return
    assert words[0] in COMMANDS, f"no such command: {line}"
    if len(words) == 1 or "--help" in words:
        return
    module = import_module(f"lumigraph.cli.{COMMANDS[words[0]].module}")
    parse(module.Arguments, words[1:], program=f"lumigraph {words[0]}")


def test_command_lines_are_found_and_judged():
    assert len(list(all_command_lines())) > 20
    with pytest.raises(UsageError, match="unknown option --second"):
        test_command_lines_parse("lumigraph train DATA --second 3")
    with pytest.raises(AssertionError, match="no such command"):
        test_command_lines_parse("lumigraph trian DATA")


def test_every_command_is_shown_somewhere():
    shown = {line.values[0].split()[1] for line in all_command_lines()}
    assert set(COMMANDS) <= shown


def test_tables_of_settings_are_up_to_date():
    filled = runpy.run_path(str(ROOT / "docs" / "make_tables.py"))["filled"]
    page = (ROOT / "docs" / "training.md").read_text()
    assert filled(page) == page, "run: python docs/make_tables.py"


def test_example_of_a_camera_path_can_be_read(tmp_path):
    from lumigraph.core import CameraPath

    text = (ROOT / "docs" / "first-scene.md").read_text()
    block = next(match[2] for match in FENCE.finditer(text) if match[1] == "json")
    (tmp_path / "path.json").write_text(block)
    assert CameraPath.from_file(tmp_path / "path.json").frame_count == 61


def test_measured_figures_are_those_of_the_result_file():
    text = (ROOT / "README.md").read_text()
    file = re.search(r"\[result file\]\((\S+-lego\.json)\)", text)
    shown = re.findall(r"^\| `(\w+)` \| (\d+) s \| ([\d.]+) dB \| ([\d.]+) \|", text, re.M)
    assert file and shown
    rows = json.loads((ROOT / file[1]).read_text())["rows"]
    measured = {
        (row["preset"], f"{row['budget_seconds']:.0f}", f"{row['psnr']:.2f}", f"{row['ssim']:.3f}")
        for row in rows
    }
    assert set(shown) == measured


def test_pictures_of_the_manual_are_small():
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 300 * 1024, name_of(picture)


def test_the_table_of_meshes_is_that_of_its_result_file():
    text = (ROOT / "docs" / "meshes.md").read_text()
    file = re.search(r"\[result file\]\(\.\./(\S+-mesh\.json)\)", text)
    number = r"([-+]?[\d.]+)"
    shown = re.findall(
        rf"^\| (\w+), \w+ {number} \| {number} \| {number} \| {number} \| {number} % \|", text, re.M
    )
    assert file and shown
    measured = {
        (
            row["source"],
            f"{row.get('level') or row['truncation']:g}",
            f"{row['accuracy_mean'] * 1e3:.1f}",
            f"{row['signed_mean'] * 1e3:+.1f}",
            f"{row['completeness_mean'] * 1e3:.1f}",
            f"{row['farther_than_0.02'] * 100:.1f}",
        )
        for row in json.loads((ROOT / file[1]).read_text())["rows"]
        if row["method"] == "nerf"
    }
    assert set(shown) == measured
