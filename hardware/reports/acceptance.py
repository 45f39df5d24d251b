"""The claims of the publication one by one: what the model makes of them, and how that is to be
read.

    fitted      the claim was used to choose values of the model: agreement proves consistency alone
    predicted   it was not: agreement means something
    reported    printed as it comes out, with no bound

`ideal` has every table on chip and launches for free, as the publication; `honest` has neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lumigraph.hardware import equations
from lumigraph.hardware.claims import Claim, claims, published
from lumigraph.hardware.cluster import ClusterSpec
from lumigraph.hardware.energy import area_mm2
from lumigraph.hardware.simulation import rest_of
from lumigraph.hardware.workloads import APPLICATIONS

SIZES = (8, 16, 32, 64)
FHD = equations.FHD_PIXELS


@dataclass(frozen=True)
class Finding:
    """A claim and what came out."""

    claim: Claim
    method: str
    """closed form, cycle model, or arithmetic."""
    standing: str
    """fitted, predicted or reported."""
    ideal: float | str | None
    honest: float | str | None
    bound: float | None = None
    """Largest relative error at which the claim counts as reproduced."""

    @property
    def error(self) -> float | None:
        """Relative, of the ideal value, against as many digits as are known."""
        target = self.claim.exact if self.claim.exact is not None else self.claim.value
        if isinstance(target, int | float) and isinstance(self.ideal, int | float):
            return self.ideal / target - 1
        return None

    @property
    def verdict(self) -> str:
        """fitted, reported, reproduced or not; recalled digits only agree or disagree."""
        if self.standing != "predicted":
            return self.standing
        if isinstance(self.claim.value, str):
            good = self.ideal == self.claim.value
        else:
            good = self.error is not None and abs(self.error) <= (self.bound or 0.0)
        if self.claim.tag == "recalled":
            return "agrees" if good else "disagrees"
        return "reproduced" if good else "not reproduced"


Speeds = Mapping[tuple[str, str, int], float]
"""(application, encoding, processors) -> end-to-end speed-up."""


def closed_form_speeds() -> dict[tuple[str, str, int], float]:
    """Of the calibrated set. Other encodings: the rest takes as long, and a processor as long for
    a sample, so that all speed-ups scale with the shares."""
    base, found = published(), {}
    for name, app in base.applications.items():
        for kind in base.rest_mean:
            rest = rest_of(name, kind)
            rate = app.rate * app.rest / rest
            for n in SIZES:
                found[name, kind, n] = equations.speed_up(
                    rate, rest, processors=n, rest_fusion=base.rest_fusion
                )
    return found


def mean_speed(speeds: Speeds, kind: str, processors: int) -> float:
    """Over the four applications."""
    return sum(speeds[name, kind, processors] for name in APPLICATIONS) / len(APPLICATIONS)


def findings(ideal: Speeds, honest: Speeds, bandwidth: Mapping[str, float]) -> list[Finding]:
    """All claims that the model speaks about.

    Args:
        ideal, honest: of the cycle model, with samples a frame calibrated as the closed form.
        bandwidth: bytes a second at 4k and 60 frames/s of our traces, by application.
    """
    known, closed = claims(), closed_form_speeds()
    rows = [*_gaps(known), *_shares(known)]
    for kind, claim, standing, bound in (
        ("hash", "P8", "fitted", 0.01),
        ("dense", "P9", "predicted", 0.05),
        ("lowres", "P10", "predicted", 0.06),
    ):
        for n in SIZES:
            row = known[f"{claim}.{n}"]
            value = mean_speed(closed, kind, n)
            rows.append(Finding(row, "closed form", standing, value, None, bound))
            values = mean_speed(ideal, kind, n), mean_speed(honest, kind, n)
            rows.append(Finding(row, "cycle model", standing, *values, bound))
    largest = [max(speeds[name, "hash", 64] for name in APPLICATIONS) for speeds in (ideal, honest)]
    closed_largest = max(closed[name, "hash", 64] for name in APPLICATIONS)
    rows.append(Finding(known["P7"], "closed form", "fitted", closed_largest, None))
    rows.append(Finding(known["P7"], "cycle model", "fitted", largest[0], largest[1]))
    rows += _plateaus(known, closed, ideal)
    rows += _frame_rates(known, ideal, honest)
    rows += [*_kernels(known), *_costs(known, bandwidth)]
    return rows


def _gaps(known: Mapping[str, Claim]) -> list[Finding]:
    apps = published().applications
    gaps = {n: equations.gap(apps[n].frame_seconds, "4k", 60) for n in ("nerf", "nvr")}
    # the published time of NVR is known through its gap alone
    standing = {"nerf": "predicted", "nvr": "fitted"}
    return [
        Finding(known[f"P1.{name}"], "arithmetic", standing[name], gap, gap, 0.01)
        for name, gap in gaps.items()
    ]


def _shares(known: Mapping[str, Claim]) -> list[Finding]:
    base = published()
    rows = []
    for kind in base.rest_mean:
        share = 100 * (1 - sum(rest_of(name, kind) for name in APPLICATIONS) / len(APPLICATIONS))
        rows.append(Finding(known[f"P3.{kind}"], "closed form", "fitted", share, None))
    return rows


def _plateaus(known: Mapping[str, Claim], closed: Speeds, simulated: Speeds) -> list[Finding]:
    base = published()
    rows = []
    for name in ("nerf", "nsdf", "nvr"):
        row = known[f"P12.{name}"]
        for method, speeds in (("closed form", closed), ("cycle model", simulated)):
            ceiling = base.rest_fusion / rest_of(name, "hash")
            reached = [n for n in SIZES if speeds[name, "hash", n] >= ceiling * 0.99]
            rows.append(Finding(row, method, "fitted", reached[0] if reached else None, None))
    return rows


def _frame_rates(known: Mapping[str, Claim], ideal: Speeds, honest: Speeds) -> list[Finding]:
    apps = published().applications

    def reaches(speeds: Speeds, name: str, size: str, rate: int) -> bool:
        return speeds[name, "hash", 64] >= equations.gap(apps[name].frame_seconds, size, rate)

    def nerf(speeds: Speeds) -> str:
        rates = [r for r in equations.FRAME_RATES if reaches(speeds, "nerf", "4k", r)]
        return f"4k@{max(rates)}" if rates else "less than 4k@30"

    def other(speeds: Speeds, name: str) -> str:
        return "8k@120" if reaches(speeds, name, "8k", 120) else "less than 8k@120"

    rows = [Finding(known["P11.nerf"], "cycle model", "fitted", nerf(ideal), nerf(honest))]
    for name, standing in (("nsdf", "fitted"), ("nvr", "predicted"), ("gia", "predicted")):
        values = other(ideal, name), other(honest, name)
        rows.append(Finding(known[f"P11.{name}"], "cycle model", standing, *values))
    return rows


def _kernels(known: Mapping[str, Claim]) -> list[Finding]:
    """Encoding and networks together, mean at 64 processors: the fused cluster has one time."""
    ups = [app.rate * 64 * (1 - app.rest) for app in published().applications.values()]
    mean = sum(ups) / len(ups)
    method = "both together at 64, closed form"
    return [
        Finding(known[f"P13.{name}"], method, "predicted", mean, None, 0.1)
        for name in ("encoding", "networks")
    ]


def _costs(known: Mapping[str, Claim], bandwidth: Mapping[str, float]) -> list[Finding]:
    base = published()
    rows = []
    for n in (8, 64):
        for claim, per_processor in (("P14", base.area_percent), ("P15", base.power_percent)):
            value = n * per_processor
            standing = "fitted" if n == 64 else "predicted"
            row = known[f"{claim}.{n}"]
            rows.append(Finding(row, "linear in processors", standing, value, None, 0.005))
    ours = 100 * sum(area_mm2(ClusterSpec.load("paper-ideal")).values()) / base.die_mm2
    for n in (8, 64):
        row = known[f"P14.{n}"]
        rows.append(Finding(row, "bottom-up", "predicted", n * ours, n * ours, 0.005))
    pixels = equations.pixels_of("4k") * 60
    for name, key in (("nerf", "P16.nerf"), ("least", "P16.least")):
        value = pixels * base.bytes_per_pixel[name] / 2**30
        rows.append(Finding(known[key], "bytes a pixel", "fitted", value, None))
    moved: dict[str, Any] = {k: v / 1e9 for k, v in bandwidth.items()}
    least = min(moved.values())
    rows.append(Finding(known["P16.nerf"], "our traces", "reported", moved["nerf"], None))
    rows.append(Finding(known["P16.least"], "our traces", "reported", least, None))
    return rows
