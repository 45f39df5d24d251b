"""Energy and area: counts of actions times a table of one technology, in which every entry names
its source and accuracy. Nothing is taken for granted: a component that the table lacks is an error.

    energy = sum over actions of count x energy + leakage x time
    sram   log-log between the table's sizes; reads of w bits cost E64 (0.4 + 0.6 w / 64)
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from lumigraph.core.errors import ConfigError
from lumigraph.core.files import reason_of

from .cluster import ClusterSpec
from .workloads import Workload

SCHEMA = "lumigraph.hardware.technology/1"
_NEEDS = ("source", "accuracy", "tag")
_FORMATS = {
    8: ("int8_mul", "int32_add"),
    16: ("fp16_mul", "fp16_add"),
    32: ("fp32_mul", "fp32_add"),
}
_MACS = {8: "int8_mac", 16: "fp16_mac", 32: "fp32_mac"}


@dataclass(frozen=True)
class Technology:
    """Energies and areas of one node, from one file."""

    name: str
    node_nm: float
    entries: Mapping[str, Any]

    @classmethod
    def load(cls, name: str) -> Technology:
        """A table by its name (7nm, 45nm), or a JSON file.

        Raises:
            ConfigError: no such table, another schema, or an entry without source or accuracy.
        """
        return _shipped(name) if name in technology_names() else cls._from_file(Path(name))

    @classmethod
    def _from_file(cls, path: Path) -> Technology:
        if not path.is_file():
            known = ", ".join(technology_names())
            raise ConfigError(f"technology {str(path)!r}: neither a file nor one of {known}")
        try:
            value = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: not readable as JSON ({reason_of(error)})") from error
        return cls.from_mapping(value, source=str(path))

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any], *, source: str) -> Technology:
        """Raises ConfigError as `load` does."""
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise ConfigError(f"{source}: expected schema {SCHEMA!r}")
        rest = {k: v for k, v in value.items() if k not in ("schema", "name", "node_nm")}
        _check_sources(rest, source, "")
        return cls(str(value["name"]), float(value["node_nm"]), rest)

    def energy_joules(self, action: str) -> float:
        """Of one operation.

        Raises:
            ConfigError: the table lacks it.
        """
        return self.value_of("energy_pj", action) * 1e-12

    def area_mm2(self, component: str) -> float:
        return self.value_of("area_um2", component) * 1e-6

    def dram_joules_per_byte(self, kind: str) -> float:
        return self.value_of("dram_pj_64bit", kind) / 8 * 1e-12

    def sram_read_joules(self, size_bytes: float, width_bits: int) -> float:
        """One read of a memory of a size.

        Raises:
            ConfigError: the size is far beyond the table (a factor of 4).
        """
        points = {
            int(k) * 1024: v for k, v in self._row("sram_read_pj_64bit")["points_kib"].items()
        }
        sizes = sorted(points)
        if not sizes[0] / 4 <= size_bytes <= sizes[-1] * 4:
            raise ConfigError(
                f"technology {self.name}: a bank of {size_bytes / 1024:g} KiB is beyond its table, "
                f"{sizes[0] // 4096} to {sizes[-1] // 256} KiB; change sram_kib or banks"
            )
        upper = next((i for i in range(1, len(sizes)) if size_bytes <= sizes[i]), len(sizes) - 1)
        low, high = sizes[upper - 1], sizes[upper]
        slope = math.log(points[high] / points[low]) / math.log(high / low)
        wide = points[low] * (size_bytes / low) ** slope
        width = self._row("sram_width")
        return wide * (width["fixed"] + width["per_64_bits"] * width_bits / 64) * 1e-12

    def leakage_watts(self, sram_bytes: float) -> float:
        return float(self._row("leakage_w_per_mib")["value"]) * sram_bytes / 2**20

    def sources(self) -> list[tuple[str, str, str, str]]:
        """(entry, source, accuracy, tag) of everything in the table."""
        rows = []
        for name, row in self.entries.items():
            parts = {name: row} if "source" in row else {f"{name}.{k}": v for k, v in row.items()}
            rows += [(k, v["source"], v["accuracy"], v["tag"]) for k, v in parts.items()]
        return rows

    def _row(self, group: str) -> Mapping[str, Any]:
        if group not in self.entries:
            raise ConfigError(f"technology {self.name}: has no {group!r}; add it with its source")
        row: Mapping[str, Any] = self.entries[group]
        return row

    def value_of(self, group: str, name: str) -> float:
        """An entry in the unit of its group."""
        row = self._row(group)
        if name not in row:
            raise ConfigError(
                f"technology {self.name}: has no {name!r} in {group}; it knows {', '.join(row)}"
            )
        return float(row[name]["value"])


def technology_names() -> list[str]:
    """Tables that are shipped."""
    names = [file.name for file in resources.files("lumigraph.hardware").joinpath("data").iterdir()]
    found = [n for n in names if n.startswith("technology-")]
    return sorted(n.removeprefix("technology-").removesuffix(".json") for n in found)


@functools.cache
def _shipped(name: str) -> Technology:
    folder = resources.files("lumigraph.hardware").joinpath("data")
    text = folder.joinpath(f"technology-{name}.json").read_text()
    return Technology.from_mapping(json.loads(text), source=f"technology {name}")


def _check_sources(value: Mapping[str, Any], source: str, prefix: str) -> None:
    for name, row in value.items():
        if not isinstance(row, dict):
            raise ConfigError(f"{source}: {prefix}{name} must be a mapping with a source")
        if "value" in row or "points_kib" in row or "source" in row or "fixed" in row:
            missing = [need for need in _NEEDS if not row.get(need)]
            if missing:
                raise ConfigError(f"{source}: {prefix}{name} has no {missing[0]}; all need one")
        else:
            _check_sources(row, source, f"{prefix}{name}.")


@dataclass(frozen=True)
class Actions:
    """How often things happen; of a sample, a frame or anything else."""

    macs: float
    table_reads: float
    hash_multiplications: float
    position_multiplications: float
    interpolations: float
    """Multiply-accumulates of corner weights."""
    port_bytes: float
    dram_bytes: float

    def times(self, factor: float) -> Actions:
        return Actions(*(value * factor for value in vars(self).values()))


def actions_of_sample(
    workload: Workload,
    *,
    table_reads: float | None = None,
    line_bytes: float = 0.0,
    dram_bytes: float = 0.0,
) -> Actions:
    """What one sample costs.

    Args:
        table_reads: after merging and reuse; every corner of every level when None.
        line_bytes, dram_bytes: fetched for tables that do not fit.
    """
    encoding = workload.encoding
    hashed = sum(encoding.hashed)
    corners, levels, dimensions = encoding.corners, encoding.levels, encoding.dimensions
    return Actions(
        macs=workload.macs,
        table_reads=levels * corners if table_reads is None else table_reads,
        hash_multiplications=hashed * corners * (dimensions - 1),
        position_multiplications=levels * dimensions,
        interpolations=levels * corners * encoding.features,
        port_bytes=workload.input_bytes + workload.output_bytes + line_bytes,
        dram_bytes=dram_bytes,
    )


def energy_joules(actions: Actions, workload: Workload, cluster: ClusterSpec) -> dict[str, float]:
    """Joules by kind of action, without leakage; their sum is the total."""
    table = Technology.load(cluster.technology)
    engines = cluster.nfp.encoding
    mul, add = _FORMATS[cluster.nfp.mlp.data_bits]
    feature_mul, feature_add = _FORMATS[engines.feature_bits]
    mac = table.energy_joules(mul) + table.energy_joules(add)
    interpolation = table.energy_joules(feature_mul) + table.energy_joules(feature_add)
    bank_bytes = engines.sram_kib * 1024 / engines.banks
    bits = workload.encoding.features * engines.feature_bits
    return {
        "networks": actions.macs * mac,
        "table reads": actions.table_reads * table.sram_read_joules(bank_bytes, bits),
        "hashing": actions.hash_multiplications * table.energy_joules("int32_mul"),
        "positions": actions.position_multiplications * table.energy_joules("fp32_mul"),
        "interpolation": actions.interpolations * interpolation,
        "L2": actions.port_bytes * table.energy_joules("l2_byte"),
        "DRAM": actions.dram_bytes * table.dram_joules_per_byte(cluster.memory.dram.kind),
    }


def leakage_watts(cluster: ClusterSpec) -> float:
    """Of the memories of all processors."""
    engines = cluster.nfp.encoding
    size = engines.sram_kib * 1024 * engines.engines * cluster.nfp.count
    return Technology.load(cluster.technology).leakage_watts(size)


def area_mm2(cluster: ClusterSpec) -> dict[str, float]:
    """Of one processor, by block; their sum is the total."""
    table = Technology.load(cluster.technology)
    engines, mlp = cluster.nfp.encoding, cluster.nfp.mlp
    bits = engines.sram_kib * 1024 * 8 * engines.engines
    banked = 1 + table.value_of("area_um2", "sram_bank_overhead") * engines.banks / 8
    efficiency = table.value_of("area_um2", "sram_efficiency")
    arrays = mlp.lanes * (mlp.stages if mlp.mode == "layer_pipelined" else 1)
    networks = mlp.rows * mlp.cols * arrays * table.area_mm2(_MACS[mlp.data_bits])
    # 8 corners x 2 axes of hash multipliers, 8 corners x 2 features of interpolation
    encoding = (
        engines.engines
        * 16
        * (table.area_mm2("int32_mul") + table.area_mm2(_MACS[engines.feature_bits]))
    )
    logic = networks + encoding
    return {
        "table memories": bits * table.area_mm2("sram_bit") / efficiency * banked,
        "network arrays": networks,
        "encoding logic": encoding,
        "control": logic * table.value_of("area_um2", "control"),
    }
