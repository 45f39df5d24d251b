"""The report of one trace on one cluster: with ideal and with honest memories, side by side."""

from __future__ import annotations

from typing import Any

from lumigraph.hardware.claims import published
from lumigraph.hardware.cluster import ClusterSpec
from lumigraph.hardware.energy import Technology
from lumigraph.hardware.equations import FHD_PIXELS, FRAME_RATES, RESOLUTIONS, pixels_of
from lumigraph.hardware.settings import settings_of
from lumigraph.hardware.simulation import (
    Baseline,
    Fidelity,
    FrameResult,
    frame_of,
    measure_rate,
)
from lumigraph.hardware.trace import Trace
from lumigraph.hardware.workloads import APPLICATION_NAMES, ENCODING_NAMES

from . import plots
from .document import Plot, Report, Table

MODES = ("ideal", "honest")


def frame_report(
    trace: Trace,
    cluster: ClusterSpec,
    *,
    fidelity: Fidelity = "cycle",
    baseline: Baseline = "published",
) -> Report:
    """Simulate with ideal and honest memories and write down both.

    Raises:
        ConfigError: the cluster cannot run the trace, or the baseline does not exist.
    """
    frames = {}
    for mode in MODES:
        variant = cluster.with_settings({"capacity": mode})
        rate = measure_rate(trace, variant, fidelity=fidelity)
        frames[mode] = frame_of(trace, rate, variant, baseline=baseline)
    chosen = frames[cluster.capacity]
    tables = (
        _totals(frames),
        _baselines(frames),
        _resolutions(chosen),
        _engines(chosen),
        _parts("bytes", "Bytes of a frame", "way", "bytes", frames, lambda f: f.bytes),
        _parts("energy", "Energy of a frame", "action", "J", frames, lambda f: f.energy),
        _parts("area", "Area", "block", "mm2", frames, lambda f: f.area),
        _settings(cluster),
        _sources(cluster),
    )
    return Report(
        title=f"{trace.scene} on {cluster.name}",
        summary=_summary(frames, cluster),
        facts=_facts(trace, chosen),
        tables=tables,
        plots=tuple(_plots(frames)),
        warnings=chosen.warnings,
        result={"frames": {mode: result_of(frame) for mode, frame in frames.items()}},
        timeline=timeline_of(chosen),
    )


def _summary(frames: dict[str, FrameResult], cluster: ClusterSpec) -> str:
    honest, ideal = frames["honest"], frames["ideal"]
    chosen = frames[cluster.capacity]
    bound = "the GPU's pre- and post-processing"
    if chosen.cluster_seconds > chosen.rest_seconds:
        bound = f"the cluster ({chosen.rate.bottleneck})"
    text = (
        f"{cluster.nfp.count} processors make {chosen.frames_per_second:.1f} frames/s of "
        f"{chosen.resolution[0]} x {chosen.resolution[1]}, {chosen.speed_up:.1f} times the GPU "
        f"alone ({chosen.gpu.source} baseline) and {chosen.speed_up_of_fused:.1f} times a GPU "
        f"with fused pre- and post-processing; bound by {bound}."
    )
    if ideal.frames_per_second > 1.02 * honest.frames_per_second:
        text += (
            f" Tables that do not fit cost a factor of "
            f"{ideal.frames_per_second / honest.frames_per_second:.2f}."
        )
    return text


def _facts(trace: Trace, frame: FrameResult) -> tuple[tuple[str, str], ...]:
    n = frame.samples
    encoding = trace.workload.encoding
    kind = ENCODING_NAMES.get(encoding.kind, encoding.kind)
    rows = [
        ("application", APPLICATION_NAMES.get(trace.application, trace.application)),
        ("encoding", f"{kind}, {encoding.levels} levels of {encoding.features} features"),
        ("samples of a frame", f"{n.value:,.0f} ± {n.half_width:,.0f} (95 %)"),
        ("samples a pixel", f"{n.value / trace.pixels:.2f}"),
        ("samples simulated", f"{len(trace.positions):,}"),
        ("model", "cycle by cycle" if frame.rate.fidelity == "cycle" else "analytic"),
        ("capacity of the summary", frame.cluster.capacity),
        ("GPU baseline", f"{frame.gpu.source}, {frame.gpu.seconds * 1e3:.2f} ms a frame"),
    ]
    rows += [(str(k), str(v)) for k, v in trace.facts.items() if k != "generated"]
    return tuple(rows)


def _totals(frames: dict[str, FrameResult]) -> Table:
    rows: list[tuple[str, str, Any]] = [
        ("frames a second", "1/s", lambda f: f.frames_per_second),
        ("frame", "ms", lambda f: f.seconds * 1e3),
        ("cluster's part", "ms", lambda f: f.cluster_seconds * 1e3),
        ("GPU's part", "ms", lambda f: f.rest_seconds * 1e3),
        ("batches", "", lambda f: f.schedule.batches),
        ("stretch for want of bandwidth", "x", lambda f: max(f.stretch.values())),
        ("cycles a sample, one processor", "", lambda f: f.rate.interval_cycles),
        ("samples a second, one processor", "1/s", lambda f: f.cluster.clock_hz
         / f.rate.interval_cycles),
        ("useful share of multipliers", "%", lambda f: 100 * f.rate.mac_utilization),
        ("bytes a second to L2", "GB/s", lambda f: f.bandwidth / 1e9),
        ("energy of a frame", "mJ", lambda f: 1e3 * sum(f.energy.values())),
        ("energy of a sample", "nJ", lambda f: 1e9 * sum(f.energy.values()) / f.samples.value),
        ("power of the cluster", "W", lambda f: f.watts),
        ("area of the cluster", "mm2", lambda f: sum(f.area.values())),
        ("frames a second and watt", "", lambda f: f.frames_per_second / f.watts),
        ("frames a second and mm2", "", lambda f: f.frames_per_second / sum(f.area.values())),
    ]  # fmt: skip
    cells = tuple(
        (name, unit, *(value(frames[mode]) for mode in MODES)) for name, unit, value in rows
    )
    return Table("totals", "Totals", ("figure", "unit", *MODES), cells)


def _baselines(frames: dict[str, FrameResult]) -> Table:
    def row(name: str, seconds: Any) -> tuple[Any, ...]:
        found = [seconds(frames[mode]) for mode in MODES]
        return (name, *(s * 1e3 for s in found), *(frames["ideal"].gpu.seconds / s for s in found))

    unfused = [frame_of_unfused(frames[mode]) for mode in MODES]
    rows: tuple[tuple[Any, ...], ...] = (
        row("GPU as it was (G0)", lambda f: f.gpu.seconds),
        row(
            "GPU, fused pre- and post-processing (G1)",
            lambda f: f.gpu.seconds - f.gpu.rest_seconds + f.rest_seconds,
        ),
        (
            "cluster, unfused pre- and post-processing",
            *(s * 1e3 for s in unfused),
            *(frames["ideal"].gpu.seconds / s for s in unfused),
        ),
        row("cluster, fused", lambda f: f.seconds),
    )
    columns = ("system", "ideal, ms", "honest, ms", "speed-up, ideal", "speed-up, honest")
    note = (
        "Fused kernels would help a GPU without a cluster too: the honest comparison is with G1. "
        "A GPU with fused encoding and networks (G2) was not measured."
    )
    return Table("baselines", "Beside other systems", columns, rows, note)


def frame_of_unfused(frame: FrameResult) -> float:
    """Seconds of a frame with the cluster when the rest stays unfused and overlaps fully."""
    return max(frame.cluster_seconds, frame.gpu.rest_seconds) * max(frame.stretch.values())


def _resolutions(frame: FrameResult) -> Table:
    pixels = frame.resolution[0] * frame.resolution[1]
    rows: list[tuple[Any, ...]] = []
    for name in RESOLUTIONS:
        reached = frame.frames_per_second * pixels / pixels_of(name)
        gpu = pixels / pixels_of(name) / frame.gpu.seconds
        rows.append((name, gpu, reached, *(bool(reached >= rate) for rate in FRAME_RATES)))
    columns = ("size", "GPU, frames/s", "cluster, frames/s")
    columns += tuple(f"{rate} frames/s" for rate in FRAME_RATES)  # type: ignore[assignment]
    return Table(
        "resolutions", "Sizes of pictures", columns, tuple(rows), "Time grows with the pixels."
    )


def _engines(frame: FrameResult) -> Table:
    names = ("busy", "conflict", "miss", "back_pressure", "starve", "idle")
    rows: list[tuple[Any, ...]] = [
        (f"engine {row['engine']}", *(100 * row[name] for name in names))
        for row in frame.rate.engines
    ]
    if frame.rate.array:
        a = frame.rate.array
        cells = (a["busy"], a["overhead"], 0.0, a["blocked"], a["starve"], a["idle"])
        rows.append(("array", *(100 * cell for cell in cells)))
    columns = (
        "part",
        "busy, %",
        "conflicts, %",
        "misses, %",
        "blocked, %",
        "starved, %",
        "idle, %",
    )
    note = "Shares of all cycles; they add up to 100. Of the array, conflicts are its overhead."
    return Table("engines", "Where the cycles go", columns, tuple(rows), note)


def _parts(
    name: str, title: str, first: str, unit: str, frames: dict[str, FrameResult], get: Any
) -> Table:
    keys = list(get(frames["ideal"]))
    rows = tuple((key, *(float(get(frames[mode])[key]) for mode in MODES)) for key in keys)
    return Table(name, title, (first, *(f"{mode}, {unit}" for mode in MODES)), rows)


def _settings(cluster: ClusterSpec) -> Table:
    rows = tuple(
        (key, str(row["value"]), str(row["tag"])) for key, row in settings_of(cluster).items()
    )
    note = "Tags of defaults: what a file or an option changed is the user's own."
    return Table("settings", "The cluster", ("key", "value", "provenance"), rows, note)


def _sources(cluster: ClusterSpec) -> Table:
    rows = tuple(Technology.load(cluster.technology).sources())
    columns = ("entry", "source", "accuracy", "tag")
    return Table("sources", f"Costs at {cluster.technology}", columns, rows)


def _plots(frames: dict[str, FrameResult]) -> list[Plot]:
    rows = frames["honest"].rate.engines
    found = []
    if rows:
        names = ("busy", "conflict", "miss", "back_pressure", "starve", "idle")
        labels = [str(row["engine"]) for row in rows]
        parts = {n.replace("_", " "): [100 * row[n] for row in rows] for n in names}
        title = "Cycles of each encoding engine"
        svg = plots.stacked(title, labels, parts, x_label="% of cycles, honest memories")
        found.append(Plot("engines", title, svg))
    for name, unit, get in (
        ("energy", "mJ a frame", lambda f: {k: v * 1e3 for k, v in f.energy.items()}),
        ("area", "mm2", lambda f: f.area),
    ):
        keys = list(get(frames["ideal"]))
        values = {key: [get(frames[mode])[key] for mode in MODES] for key in keys}
        title = name.capitalize() + " of the cluster"
        found.append(Plot(name, title, plots.stacked(title, MODES, values, x_label=unit)))
    return found


def result_of(frame: FrameResult) -> dict[str, Any]:
    """A frame for machines; names end in units."""
    base = published()
    return {
        "scene": frame.scene,
        "application": frame.workload.application,
        "encoding": frame.workload.encoding.kind,
        "resolution": list(frame.resolution),
        "samples": frame.samples.value,
        "samples_half_width": frame.samples.half_width,
        "fidelity": frame.rate.fidelity,
        "capacity": frame.cluster.capacity,
        "interval_cycles": frame.rate.interval_cycles,
        "bottleneck": frame.rate.bottleneck,
        "frame_seconds": frame.seconds,
        "cluster_seconds": frame.cluster_seconds,
        "rest_seconds": frame.rest_seconds,
        "batches": frame.schedule.batches,
        "stretch": frame.stretch,
        "gpu_source": frame.gpu.source,
        "gpu_seconds": frame.gpu.seconds,
        "gpu_rest_seconds": frame.gpu.rest_seconds,
        "speed_up": frame.speed_up,
        "speed_up_of_fused": frame.speed_up_of_fused,
        "energy_joules": frame.energy,
        "power_watts": frame.watts,
        "area_mm2": frame.area,
        "bytes": frame.bytes,
        "engines": list(frame.rate.engines),
        "array": frame.rate.array,
        "published_area_mm2": base.area_percent / 100 * base.die_mm2 * frame.cluster.nfp.count,
        "pixels_of_1080p": frame.resolution[0] * frame.resolution[1] / FHD_PIXELS,
        "cluster": frame.cluster.to_mapping(),
    }


def timeline_of(frame: FrameResult) -> list[dict[str, Any]]:
    """Chrome trace events of the schedule, in microseconds; for chrome://tracing or Perfetto."""
    lanes = {"gpu": 1, "cluster": 2}
    names = {"pre": "pre-processing", "cluster": "encoding and networks", "post": "post-processing"}
    head = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": lane, "args": {"name": name}}
        for name, lane in lanes.items()
    ]
    jobs = [
        {
            "name": names[job.kind],
            "ph": "X",
            "pid": 1,
            "tid": lanes[job.resource],
            "ts": round(job.start * 1e6, 3),
            "dur": round((job.end - job.start) * 1e6, 3),
            "args": {"batch": job.batch, "round": job.round},
        }
        for job in frame.schedule.jobs
    ]
    return head + jobs
