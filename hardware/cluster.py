"""Description of a cluster: what it is made of, declaratively. Every number of a simulation that is
not measured or published stands here, with its provenance and its legal range.

A file is YAML. It starts from a preset (`base:`) or from the defaults and names what differs:

    schema: lumigraph.hardware.cluster/1
    name: wide
    base: ngpc-64
    nfp:
      encoding: {banks: 16}
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from lumigraph.core.errors import ConfigError
from lumigraph.core.files import reason_of, write_text

from .settings import build, setting, to_mapping

SCHEMA = "lumigraph.hardware.cluster/1"
BankMap = Literal["low_bits", "xor_fold", "parity", "prime"]
Capacity = Literal["ideal", "honest"]


@dataclass(frozen=True)
class Latency:
    """Pipeline stages of an encoding engine, in cycles."""

    grid_scale: int = setting(1, low=0, high=64, tag="assumed")
    pos_fract: int = setting(3, low=0, high=64, tag="assumed")
    grid_index: int = setting(4, low=0, high=64, tag="assumed")
    sram: int = setting(2, low=0, high=64, tag="assumed")
    interp: int = setting(4, low=0, high=64, tag="assumed")
    concat: int = setting(1, low=0, high=64, tag="assumed")

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class EncodingEngines:
    """Grid look-ups of one processor: an engine a level, each with its own memory."""

    engines: int = setting(16, low=1, high=64, tag="paper-2nd")
    passes: int = setting(1, low=1, high=8, tag="assumed")
    """Levels that one engine serves in turn, at most."""
    sram_kib: int = setting(1024, low=1, high=65536, tag="paper-2nd")
    """Of each engine."""
    banks: int = setting(8, low=1, high=64, tag="assumed")
    ports_per_bank: int = setting(1, low=1, high=4, tag="assumed")
    word_bytes: int = setting(4, low=1, high=64, tag="assumed")
    """Width of a bank: wider entries take several beats."""
    bank_map: BankMap = setting("parity", tag="assumed")
    """parity and xor_fold spread the corners of a cell; parity needs tables stored in 2^D parts."""
    feature_bits: int = setting(8, choices=(8, 16, 32), tag="assumed")
    corner_merge: bool = setting(True, tag="assumed")
    """Equal addresses of one sample cost one access."""
    reuse_last_cell: bool = setting(False, tag="assumed")
    """A sample in the cell of the one before it costs no access."""
    latency: Latency = field(default_factory=Latency)
    fifo_depth: int = setting(8, low=1, high=1024, tag="assumed")
    """Samples between an engine and the join of all levels."""
    replacement: Literal["lru", "pinned"] = setting("lru", tag="assumed")
    """Of tables larger than the memory: a cache of lines, or the first part of the table held."""
    ways: int = setting(16, low=1, high=64, tag="assumed")
    mshr: int = setting(16, low=1, high=1024, tag="assumed")
    """Misses of an engine that may be under way; their registers serve in turn."""


@dataclass(frozen=True)
class NetworkEngine:
    """The array of multipliers of one processor."""

    rows: int = setting(64, low=1, high=1024, tag="paper-2nd")
    cols: int = setting(64, low=1, high=1024, tag="paper-2nd")
    lanes: int = setting(1, low=1, high=64, tag="assumed")
    """Parallel arrays."""
    mode: Literal["layer_serial", "layer_pipelined"] = setting("layer_serial", tag="paper-2nd")
    """One layer at a time for a batch of samples, or an array for each layer."""
    stages: int = setting(5, low=1, high=16, tag="assumed")
    """layer_pipelined: arrays in a row, so layers at most."""
    batch: int = setting(64, low=1, high=4096, tag="assumed")
    """Samples that a layer's weights serve before the next layer's (layer_serial)."""
    pass_latency: int = setting(10, low=0, high=1000, tag="assumed")
    weight_swap: int = setting(0, low=0, high=10000, tag="assumed")
    """Cycles; 0 when weights are double buffered."""
    data_bits: int = setting(8, choices=(8, 16, 32), tag="assumed")
    input_fifo: int = setting(128, low=0, high=65536, tag="assumed")
    """Samples between join and array; layer_serial needs a batch at least, two to overlap."""
    output_fifo: int = setting(128, low=1, high=65536, tag="assumed")


@dataclass(frozen=True)
class Port:
    """Way of one processor to the L2 cache."""

    bytes_per_cycle: int = setting(32, low=1, high=4096, tag="assumed")
    latency: int = setting(200, low=0, high=100000, tag="assumed")
    """Cycles."""


@dataclass(frozen=True)
class Processor:
    """Neural fields processors."""

    count: int = setting(8, low=1, high=4096, tag="paper")
    clock_ghz: float = setting(1.0, low=0.01, high=10.0, tag="assumed")
    encoding: EncodingEngines = field(default_factory=EncodingEngines)
    mlp: NetworkEngine = field(default_factory=NetworkEngine)
    l2_port: Port = field(default_factory=Port)
    deal: Literal["block", "cyclic"] = setting("block", tag="assumed")
    """How rays are dealt to processors: neighbouring runs, or in turn."""


@dataclass(frozen=True)
class L2Cache:
    """The GPU's second-level cache."""

    kib: int = setting(6144, low=64, high=1048576, tag="public")
    line: int = setting(32, choices=(16, 32, 64, 128), tag="assumed")
    """Bytes."""
    ways: int = setting(16, low=1, high=64, tag="assumed")
    gb_s: float = setting(2000.0, low=1.0, high=1e6, tag="assumed")


@dataclass(frozen=True)
class Dram:
    """Main memory. Its kind must have an energy in the table of the technology."""

    kind: str = setting("gddr6x", tag="public")
    gb_s: float = setting(936.2, low=1.0, high=1e6, tag="public")
    efficiency: float = setting(0.80, low=0.05, high=1.0, tag="assumed")
    latency_ns: float = setting(350.0, low=1.0, high=1e5, tag="assumed")


@dataclass(frozen=True)
class Memory:
    """Memory behind the processors."""

    l2: L2Cache = field(default_factory=L2Cache)
    dram: Dram = field(default_factory=Dram)


@dataclass(frozen=True)
class GpuSide:
    """The GPU beside which the cluster stands."""

    preset: Literal["rtx3090"] = setting("rtx3090", tag="paper-2nd")
    rest_fusion: float = setting(9.94, low=1.0, high=1000.0, tag="paper")
    """Speed-up of pre- and post-processing by fused kernels; 1 for none."""
    launch_us: float = setting(5.0, low=0.0, high=1000.0, tag="assumed")


@dataclass(frozen=True)
class Overlap:
    """How GPU and cluster take turns."""

    batches: int | Literal["auto"] = setting("auto", low=1, high=4096, tag="assumed")
    """Parts of a frame; auto takes the best power of two."""
    overlap: bool = setting(True, tag="paper-2nd")
    table_fill: Literal["scene", "frame"] = setting("scene", tag="assumed")
    """How often the tables are loaded."""
    broadcast: bool = setting(True, tag="assumed")
    """All processors are filled by one read of the tables."""


@dataclass(frozen=True)
class ClusterSpec:
    """A cluster and what surrounds it. Immutable; `with_settings` makes variants."""

    name: str = setting("ngpc-8", tag="assumed")
    nfp: Processor = field(default_factory=Processor)
    memory: Memory = field(default_factory=Memory)
    gpu: GpuSide = field(default_factory=GpuSide)
    schedule: Overlap = field(default_factory=Overlap)
    capacity: Capacity = setting("honest", tag="assumed")
    """ideal: every table is on chip; honest: what does not fit is fetched."""
    technology: str = setting("7nm", tag="paper-2nd")
    """Name of the table of energies and areas."""

    def __post_init__(self) -> None:
        encoding, mlp = self.nfp.encoding, self.nfp.mlp
        if encoding.bank_map != "prime":
            _power_of_two("nfp.encoding.banks", encoding.banks)
        _power_of_two("memory.l2.line", self.memory.l2.line)
        if mlp.mode == "layer_serial" and mlp.input_fifo < mlp.batch:
            raise ConfigError(
                f"nfp.mlp.input_fifo = {mlp.input_fifo}: layer_serial collects a batch, so "
                f"it must be {mlp.batch} (nfp.mlp.batch) or more"
            )
        if mlp.mode == "layer_serial" and mlp.output_fifo < mlp.batch:
            raise ConfigError(
                f"nfp.mlp.output_fifo = {mlp.output_fifo}: layer_serial writes whole batches, "
                f"so it must be {mlp.batch} (nfp.mlp.batch) or more"
            )
        lines = encoding.sram_kib * 1024 // self.memory.l2.line
        if lines % encoding.ways:
            raise ConfigError(
                f"nfp.encoding.ways = {encoding.ways}: must divide the {lines} lines of the memory"
            )

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any], *, source: str = "cluster") -> ClusterSpec:
        """A cluster from nested settings.

        Raises:
            ConfigError: another schema, an unknown key or a value out of range; names the key.
        """
        rest = dict(value)
        schema = rest.pop("schema", SCHEMA)
        if schema != SCHEMA:
            raise ConfigError(f"{source}: schema {schema!r} is not known; use {SCHEMA!r}")
        base = rest.pop("base", None)
        start = preset(str(base)) if base is not None else cls()
        return build(start, rest, source=source)

    @classmethod
    def load(cls, name: str | Path) -> ClusterSpec:
        """A preset by its name, or a YAML file.

        Raises:
            ConfigError: no such preset or file, or an error in it.
        """
        if str(name) in preset_names():
            return preset(str(name))
        path = Path(name)
        if not path.is_file():
            known = ", ".join(preset_names())
            raise ConfigError(f"{name}: neither a file nor a preset; presets are {known}")
        return cls.from_mapping(_read_yaml(path.read_text(), str(path)), source=str(path))

    def with_settings(self, settings: Mapping[str, Any]) -> ClusterSpec:
        """A variant with other values under dotted keys, e.g. {"nfp.count": 64}.

        Raises:
            ConfigError: an unknown key or a value out of range.

        >>> ClusterSpec().with_settings({"nfp.count": 64}).nfp.count
        64
        """
        nested: dict[str, Any] = {}
        for key, value in settings.items():
            *parents, last = key.split(".")
            place = nested
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        return build(self, nested, source="setting")

    def to_mapping(self) -> dict[str, Any]:
        """All settings, nested as in a file."""
        return {"schema": SCHEMA, **to_mapping(self)}

    def save(self, path: Path) -> None:
        """Write a file that `load` reads."""
        import yaml

        write_text(path, yaml.safe_dump(self.to_mapping(), sort_keys=False))

    @property
    def clock_hz(self) -> float:
        return self.nfp.clock_ghz * 1e9


def preset_names() -> list[str]:
    """Names that `ClusterSpec.load` knows."""
    folder = resources.files("lumigraph.hardware").joinpath("presets")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir())


def preset(name: str) -> ClusterSpec:
    """A cluster that is shipped with the package.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in preset_names():
        raise ConfigError(f"preset {name!r}: use one of {', '.join(preset_names())}")
    file = resources.files("lumigraph.hardware").joinpath("presets", f"{name}.yaml")
    return ClusterSpec.from_mapping(_read_yaml(file.read_text(), name), source=f"preset {name}")


def _read_yaml(text: str, source: str) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not readable as YAML ({reason_of(error)})") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: expected a mapping of settings")
    return value


def _power_of_two(name: str, value: int) -> None:
    if value & (value - 1):
        legal = ", ".join(str(1 << k) for k in range(int(math.log2(value)) + 2))
        raise ConfigError(f"{name} = {value}: must be a power of two: {legal}, ...")
