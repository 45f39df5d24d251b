"""What a report is made of, and its forms: Markdown, one HTML file that needs nothing else, JSON,
CSV. The same content gives the same bytes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from lumigraph.core.files import write_text

SCHEMA = "lumigraph.hardware.report/1"
Cell = str | float | int | bool | None


@dataclass(frozen=True)
class Table:
    """Rows under named columns."""

    id: str
    """Also the name of its CSV file."""
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.id


@dataclass(frozen=True)
class Plot:
    """A drawing as SVG text."""

    id: str
    title: str
    svg: str


@dataclass(frozen=True)
class Report:
    """A whole report. The first sentence says what matters most."""

    title: str
    summary: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...] = ()
    warnings: tuple[str, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    """Everything for machines."""
    timeline: Sequence[Mapping[str, Any]] = ()
    """Chrome trace events."""

    def write(self, folder: Path) -> list[Path]:
        """Write all forms into a folder.

        Returns:
            The files.

        Raises:
            DataError: one cannot be written.
        """
        files = {"result.json": self.to_json(), "report.md": self.to_markdown()}
        files["report.html"] = self.to_html()
        files |= {f"{table.id}.csv": _csv(table) for table in self.tables}
        files |= {f"figures/{plot.id}.svg": plot.svg + "\n" for plot in self.plots}
        if self.timeline:
            events = {"displayTimeUnit": "ms", "traceEvents": list(self.timeline)}
            files["timeline.json"] = json.dumps(events, indent=0) + "\n"
        for name, text in files.items():
            write_text(folder / name, text)
        return [folder / name for name in files]

    def to_json(self) -> str:
        """The result, the tables and the warnings."""
        value = {
            "schema": SCHEMA,
            "title": self.title,
            "summary": self.summary,
            "facts": dict(self.facts),
            "warnings": list(self.warnings),
            "tables": {
                table.id: {
                    "title": table.title,
                    "columns": list(table.columns),
                    "rows": [list(row) for row in table.rows],
                    "note": table.note,
                }
                for table in self.tables
            },
            "result": self.result,
        }
        return json.dumps(_plain(value), indent=1) + "\n"

    def to_markdown(self) -> str:
        lines = [f"# {self.title}", "", self.summary, ""]
        lines += [f"- {name}: {value}" for name, value in self.facts]
        lines += [f"- warning: {text}" for text in self.warnings]
        for table in self.tables:
            lines += ["", f"## {table.title}", "", _row(table.columns)]
            lines.append("|" + " --- |" * len(table.columns))
            lines += [_row([shown(cell) for cell in row]) for row in table.rows]
            lines += ["", table.note] if table.note else []
        lines += ["", *(f"![{plot.title}](figures/{plot.id}.svg)" for plot in self.plots)]
        return "\n".join(lines).rstrip() + "\n"

    def to_html(self) -> str:
        """One file; plots are inside."""
        import jinja2
        import markupsafe

        source = resources.files(__package__).joinpath("report.html.jinja").read_text()
        environment = jinja2.Environment(
            autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        plots = [(plot.title, markupsafe.Markup(plot.svg)) for plot in self.plots]
        page: str = environment.from_string(source).render(report=self, plots=plots, shown=shown)
        return page + "\n"


def shown(cell: Cell) -> str:
    """A cell as text: four digits that count, – for what does not exist."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        if not math.isfinite(cell):
            return "–"
        return f"{cell:,.0f}" if abs(cell) >= 1e4 else f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def read_report(path: Path) -> Report:
    """A report from its `result.json`, without plots.

    Raises:
        DataError: missing, damaged, or of another version.
    """
    from lumigraph.core.errors import DataError
    from lumigraph.core.files import reason_of

    file = path / "result.json" if path.is_dir() else path
    try:
        value = json.loads(file.read_text())
        if value.get("schema") != SCHEMA:
            raise DataError(
                f"{file}: schema {value.get('schema')!r}; this version reads {SCHEMA!r}"
            )
        tables = tuple(
            Table(
                name,
                row["title"],
                tuple(row["columns"]),
                tuple(map(tuple, row["rows"])),
                row["note"],
            )
            for name, row in value["tables"].items()
        )
        return Report(
            title=value["title"],
            summary=value["summary"],
            facts=tuple(value["facts"].items()),
            tables=tables,
            warnings=tuple(value["warnings"]),
            result=value["result"],
        )
    except FileNotFoundError as error:
        raise DataError(f"{file}: not found; make one with: lumigraph simulate run") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: damaged report ({reason_of(error)}); simulate again") from error


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _csv(table: Table) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([["" if cell is None else cell for cell in row] for row in table.rows])
    return stream.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None
