"""A1 to A11 through the whole chain: traces, cycle model, schedule, report."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lumigraph.core.errors import DataError
from lumigraph.hardware.claims import claims, published
from lumigraph.hardware.cluster import ClusterSpec
from lumigraph.hardware.reports.document import read_report
from lumigraph.hardware.reports.frame_report import frame_report, timeline_of
from lumigraph.hardware.reports.reproduce import reproduce
from lumigraph.hardware.simulation import simulate
from lumigraph.hardware.sweeping import sweep
from lumigraph.hardware.synthetic import synthetic_trace
from lumigraph.hardware.trace import KernelTime

pytest.importorskip("numba")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("reproduced")
    report, files = reproduce(out, tiles=6)
    return report, files, out


def rows(report, method=None):
    found = report.result["findings"]
    return {row["id"]: row for row in found if method is None or row["method"] == method}


def test_calibrated_means_a2(made):
    by_id = rows(made[0], "cycle model")
    for n in (8, 16, 32, 64):
        row = by_id[f"P8.{n}"]
        assert row["verdict"] == "fitted"
        assert row["ideal"] == pytest.approx(claims()[f"P8.{n}"].exact, rel=0.05)
        assert row["honest"] <= row["ideal"] * 1.001
    assert by_id["P7"]["ideal"] == pytest.approx(58.36, rel=0.05)


def test_dense_means_are_not_fitted_a11(made):
    by_id = rows(made[0], "cycle model")
    for claim in ("P9.64", "P10.64"):
        assert by_id[claim]["standing"] == "predicted" and by_id[claim]["tag"] == "recalled"
        assert by_id[claim]["verdict"] == "agrees" and abs(by_id[claim]["error"]) <= 0.05


def test_plateaus_and_frame_rates(made):
    by_id = rows(made[0], "cycle model")
    assert [by_id[f"P12.{n}"]["ideal"] for n in ("nerf", "nsdf", "nvr")] == [64, 32, 16]
    assert by_id["P11.nerf"]["ideal"] == "4k@30"
    assert {by_id[f"P11.{n}"]["ideal"] for n in ("nsdf", "nvr", "gia")} == {"8k@120"}


def test_what_was_fitted_is_never_called_reproduced(made):
    report = made[0]
    fitted = {row["id"] for row in report.result["findings"] if row["verdict"] == "fitted"}
    assert set(published().fitted_to) <= fitted
    for row in report.result["findings"]:
        if row["id"] in published().fitted_to:
            assert row["verdict"] == "fitted"
        if row["tag"] == "recalled":
            assert row["verdict"] in ("agrees", "disagrees")
    assert report.summary.startswith("Reproduced without being fitted: P1.nerf")
    first = report.summary.split("In agreement")[0]
    assert not any(f" {name}," in first for name in published().fitted_to)


def test_what_does_not_come_out_is_said(made):
    report = made[0]
    missed = {row["id"] for row in report.result["findings"] if row["verdict"] == "not reproduced"}
    assert missed == {"P13.encoding", "P13.networks", "P14.8", "P14.64"}
    assert all(name in report.summary.split("Not reproduced: ")[1] for name in missed)
    area = rows(report, "bottom-up")["P14.64"]
    assert 1.5 < area["ideal"] / area["paper"] < 2.5


def test_own_traces_a3_are_printed(made):
    table = next(t for t in made[0].tables if t.id == "own-means")
    assert [row[0] for row in table.rows] == [8, 16, 32, 64]
    assert all(math.isfinite(row[3]) and row[5].endswith("%") for row in table.rows)


def test_bandwidth_a10(made):
    found = [row for row in made[0].result["findings"] if row["id"] == "P16.nerf"]
    assert [row["verdict"] for row in found] == ["fitted", "reported"]
    assert abs(found[0]["error"]) <= 0.02


def test_files(made):
    report, files, out = made
    names = {str(file.relative_to(out)) for file in files}
    assert {"result.json", "report.md", "report.html", "claims.csv", "fifo.csv"} <= names
    assert sum(name.endswith(".svg") for name in names) == len(report.plots) >= 7
    page = (out / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']https?:|@import|url\(http""", page)  # works offline

    class Counter(HTMLParser):
        tables = svgs = 0

        def handle_starttag(self, tag, attrs):
            self.tables += tag == "table"
            self.svgs += tag == "svg"

    counter = Counter()
    counter.feed(page)
    assert (counter.tables, counter.svgs) == (len(report.tables), len(report.plots))
    again = read_report(out)
    assert again.summary == report.summary and len(again.tables) == len(report.tables)
    assert json.loads((out / "result.json").read_text())["tables"]["gaps"]["rows"]


def test_report_of_one_trace(tmp_path):
    trace = synthetic_trace("nsdf", tiles=6)
    cluster = ClusterSpec.load("ngpc-16")
    report = frame_report(trace, cluster)
    first = {file.name: file.read_bytes() for file in report.write(tmp_path / "a")}
    second = {file.name: file.read_bytes() for file in frame_report(trace, cluster).write(tmp_path)}
    assert first == second  # nothing but the input decides
    totals = {row[0]: row[2:] for row in report.tables[0].rows}
    frame = simulate(trace, cluster)
    assert totals["frames a second"][1] == pytest.approx(frame.frames_per_second)
    shares = [row[1:] for row in next(t for t in report.tables if t.id == "engines").rows]
    assert all(sum(row) == pytest.approx(100) for row in shares)
    energy = next(t for t in report.tables if t.id == "energy")
    milli = 1e3 * sum(row[2] for row in energy.rows)
    assert totals["energy of a frame"][1] == pytest.approx(milli)
    events = json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]
    assert events == timeline_of(frame)
    assert {e["name"] for e in events if e["ph"] == "X"} >= {"encoding and networks"}
    assert any("formulas" in text for text in report.warnings)


def test_fused_kernels_are_compared_fairly():
    """The cluster is measured against a GPU with the same fused kernels too."""
    frame = simulate(synthetic_trace("gia", tiles=6), ClusterSpec.load("paper-ideal"))
    assert frame.speed_up > 1.4 * frame.speed_up_of_fused
    base = published().applications["gia"]
    fused = base.frame_seconds * (1 - base.rest + base.rest / 9.94)
    assert frame.speed_up_of_fused == pytest.approx(fused / frame.seconds)


def test_measured_kernels_replace_published_ones():
    kernels = [("march", "pre", 2e-3), ("grid", "encoding", 5e-3), ("mlp", "networks", 4e-3)]
    kernels.append(("composite", "post", 1e-3))
    trace = replace(
        synthetic_trace("gia", tiles=6), kernels=tuple(KernelTime(*row) for row in kernels)
    )
    cluster = ClusterSpec.load("paper-ideal")
    frame = simulate(trace, cluster, baseline="measured")
    assert frame.gpu.source == "measured"
    assert frame.gpu.seconds == pytest.approx(12e-3)
    assert frame.gpu.rest_seconds == pytest.approx(3e-3)
    assert frame.rest_seconds == pytest.approx(3e-3 / 9.94)


def test_damaged_reports_are_named(tmp_path):
    with pytest.raises(DataError, match=r"result\.json: not found"):
        read_report(tmp_path)
    (tmp_path / "result.json").write_text('{"schema": "x"}')
    with pytest.raises(DataError, match="schema 'x'"):
        read_report(tmp_path)
    (tmp_path / "result.json").write_text("[")
    with pytest.raises(DataError, match="damaged report"):
        read_report(tmp_path)


def test_sweep():
    trace = synthetic_trace("gia", tiles=4)
    cluster = ClusterSpec.load("ngpc-8")
    axes = {"nfp.count": [4, 8], "nfp.mlp.lanes": [1, 2], "nfp.encoding.banks": [4, 8, 12]}
    result = sweep(trace, cluster, axes, most_area_mm2=60)
    # parity of two dimensions needs four banks; twelve are no power of two
    assert len(result.points) == 8 and len(result.refused) == 4
    assert all("power of two" in why for _, why in result.refused)
    assert result.front and all(point.fidelity == "cycle" for point in result.front)
    assert all(point.area_mm2 <= 60 for point in result.front)
    assert all(abs(point.analytic_error) < 0.08 for point in result.front)
    analytic = sweep(trace, cluster, axes, cycle_on_front=False)
    for point in analytic.front:
        assert not any(other.dominates(point) for other in analytic.points)
