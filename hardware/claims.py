"""What the publication says, and the GPU baseline that follows from it: numbers from data files,
each with its provenance.

Only `paper` and `paper-2nd` numbers may stand in a column named after the paper; `recalled` ones
carry a dagger and decide nothing.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from lumigraph.core.errors import ConfigError

CITED_TAGS = ("paper", "paper-2nd")
"""Tags of numbers that may be called the paper's."""


@dataclass(frozen=True)
class Claim:
    """One statement of the publication."""

    id: str
    claim: str
    value: float | str | tuple[float, float]
    unit: str
    tag: str
    exact: float | None = None
    """More digits of the value, recalled."""

    @property
    def shown(self) -> str:
        """The value as a table prints it: a dagger marks what was only recalled."""
        if isinstance(self.value, tuple):
            text = f"{self.value[0]:g} to {self.value[1]:g}"
        else:
            text = self.value if isinstance(self.value, str) else f"{self.value:g}"
        return text if self.tag in CITED_TAGS else f"{text} †"


@dataclass(frozen=True)
class PublishedApplication:
    """An application on the GPU of the publication, 1920x1080, hash grid."""

    frame_seconds: float
    rate: float
    """Frames that one processor computes in the time of one frame on the GPU."""
    rest: float
    """Share of the frame that is neither encoding nor networks."""
    rate_range: tuple[float, float]
    """Of all values that fit the claims equally well."""
    ceiling_range: tuple[float, float]
    """The same, of the speed-up that the rest allows."""


@dataclass(frozen=True)
class PublishedBaseline:
    """The GPU side of the publication, fitted where it is not stated."""

    pixels: int
    rest_fusion: float
    """Speed-up of the rest by fused kernels."""
    applications: dict[str, PublishedApplication]
    rest_mean: dict[str, float]
    """Mean rest over the applications, by encoding."""
    bytes_per_pixel: dict[str, float]
    die_mm2: float
    gpu_watts: float
    gpu_dram_gb_s: float
    area_percent: float
    """Of the die, for one processor."""
    power_percent: float
    """Of the GPU's power, for one processor."""
    fitted_to: tuple[str, ...]


def read_data(name: str, schema: str) -> dict[str, Any]:
    """A table that is shipped with the package.

    Raises:
        ConfigError: it is of another schema.
    """
    text = resources.files("lumigraph.hardware").joinpath("data", name).read_text()
    value: dict[str, Any] = json.loads(text)
    if value.get("schema") != schema:
        raise ConfigError(f"{name}: expected schema {schema!r}; got {value.get('schema')!r}")
    return value


@functools.cache
def claims() -> dict[str, Claim]:
    """All statements, by id."""
    rows = read_data("claims.json", "lumigraph.hardware.claims/1")["claims"]
    found = {}
    for row in rows:
        value = tuple(row["value"]) if isinstance(row["value"], list) else row["value"]
        found[row["id"]] = Claim(**{**row, "value": value})
    return found


@functools.cache
def tag_meanings() -> dict[str, str]:
    """What each tag of provenance says."""
    return dict(read_data("claims.json", "lumigraph.hardware.claims/1")["tags"])


@functools.cache
def published() -> PublishedBaseline:
    """The baseline of the publication."""
    data = read_data("published.json", "lumigraph.hardware.published/1")
    applications = {
        name: PublishedApplication(
            frame_seconds=row["frame_ms"] / 1e3,
            rate=row["rate"],
            rest=row["rest"],
            rate_range=tuple(row["rate_range"]),
            ceiling_range=tuple(row["ceiling_range"]),
        )
        for name, row in data["applications"].items()
    }
    return PublishedBaseline(
        pixels=data["pixels"],
        rest_fusion=data["rest_fusion"],
        applications=applications,
        rest_mean=data["rest_mean"],
        bytes_per_pixel=data["bytes_per_pixel"],
        die_mm2=data["gpu"]["die_mm2"],
        gpu_watts=data["gpu"]["watts"],
        gpu_dram_gb_s=data["gpu"]["dram_gb_s"],
        area_percent=data["area_percent_per_processor"],
        power_percent=data["power_percent_per_processor"],
        fitted_to=tuple(data["fitted_to"]),
    )
