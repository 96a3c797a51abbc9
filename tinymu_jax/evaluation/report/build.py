"""Write, read and compare evaluation reports: report.html, report.md and report.json."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.report.compare import group_results
from tinymu_jax.evaluation.report.examples import load_sound
from tinymu_jax.evaluation.report.render import render
from tinymu_jax.evaluation.results import EvalResult
from tinymu_jax.utils.files import make_folder, read_json_object, write_json, write_text

JSON_FILE, TEXT_FILE, PAGE_FILE = "report.json", "report.md", "report.html"
FORMAT = 2
"""Version of the format of report.json."""
REMEDY = "write it again with this version's `tinymu evaluate`"


def write_report(results: Sequence[EvalResult], output: Path) -> Path:
    """Write report.json, report.md and report.html to a folder; return the path of the HTML page.

    Results with the same kind and title form one section, which compares their checkpoints.

    Raises:
        InputError: there are no results; a table or chart repeats a column or axis, or has a wrong
            number of values; or the folder cannot be written to.
    """
    if not results:
        raise InputError(f"{output}: there are no results to report; evaluate something first")
    for result in results:
        _check(result)
    folder, groups = make_folder(output), group_results(results)
    paths = {example.audio for result in results for example in result.worst}
    sounds = {path: load_sound(path) for path in sorted(paths)}
    page, text = render(groups, sounds)
    write_json(folder / JSON_FILE, {"format": FORMAT, "results": _to_json(results)})
    write_text(folder / TEXT_FILE, text)
    write_text(folder / PAGE_FILE, page)
    return folder / PAGE_FILE


def read_report(path: str | Path) -> list[EvalResult]:
    """Read the evaluation results from a report.json, or from the folder that holds it.

    Raises:
        InputError: the file cannot be read or is not a report; the message names the wrong key.
    """
    path = _report_file(Path(path))
    content = read_json_object(path, REMEDY)
    if content.get("format") != FORMAT:
        raise InputError(
            f"{path}: has format {content.get('format')!r}, this version reads {FORMAT}; {REMEDY}"
        )
    try:
        results = _from_json(Sequence[EvalResult], content.get("results"), "results")
        for result in results:
            _check(result)
    except InputError as error:
        raise InputError(f"{path}: {error}; {REMEDY}") from error
    return list(results)


def compare_reports(reports: Sequence[str | Path], output: Path) -> Path:
    """Write one report with the results of several reports; return the path of its HTML page.

    Args:
        reports: the report.json files or their folders, in the order of the columns.
        output: the folder of the new report.

    Raises:
        InputError: a report cannot be read, or lies in the folder of the new report.
    """
    for report in reports:
        if _report_file(Path(report)).resolve().parent == Path(output).resolve():
            raise InputError(f"{output}: holds one of the reports; name another folder")
    return write_report([result for report in reports for result in read_report(report)], output)


def _report_file(path: Path) -> Path:
    return path / JSON_FILE if path.is_dir() else path


def _check(result: EvalResult) -> None:
    """Raise `InputError` if columns or axes repeat, or if the number of values is wrong."""
    pairs: list[tuple[str, Sequence[Any], Sequence[Any]]] = []
    for table in result.tables:
        pairs += [(f"{table.title}: row {n!r}", v, table.columns) for n, v in table.rows.items()]
    for radar in result.radars:
        pairs += [(f"{radar.title}: series {n!r}", v, radar.axes) for n, v in radar.series.items()]
    for matrix in result.confusions:
        rows = enumerate(matrix.counts, 1)
        pairs.append((f"{matrix.title}: the matrix", matrix.counts, matrix.labels))
        pairs += [(f"{matrix.title}: row {n}", row, matrix.labels) for n, row in rows]
    for diagram in result.reliabilities:
        pairs.append((f"{diagram.title}: accuracy", diagram.accuracy, diagram.confidence))
        pairs.append((f"{diagram.title}: counts", diagram.counts, diagram.confidence))
    columns = [(table.title, table.columns) for table in result.tables]
    columns += [(radar.title, radar.axes) for radar in result.radars]
    for title, names in columns:
        repeated = [name for name in names if list(names).count(name) > 1]
        if repeated:
            raise InputError(f"{title}: has {repeated[0]!r} twice; columns and axes must differ")
    for name, values, expected in pairs:
        if len(values) != len(expected):
            raise InputError(f"{name} has {len(values)} values where {len(expected)} belong")


def _to_json(value: Any) -> Any:
    """Convert dataclasses, containers and numbers to plain JSON; NaN and infinity become null."""
    if is_dataclass(value):
        return {field.name: _to_json(getattr(value, field.name)) for field in fields(value)}
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _to_json(part) for key, part in value.items()}
    if isinstance(value, Iterable):
        return [_to_json(part) for part in value]
    raise TypeError(f"{type(value).__name__} cannot be written to a report")


def _from_json(kind: Any, value: Any, where: str) -> Any:
    """Convert a JSON value to the type `kind`; errors name `where`, its place in the report."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else _from_json(inside[0], value, where)
    if kind is float and value is None:
        return math.nan
    if origin is Sequence and isinstance(value, list):
        return tuple(_from_json(inside[0], v, f"{where}[{n}]") for n, v in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _from_json(inside[1], v, f"{where}[{key!r}]") for key, v in value.items()}
    if is_dataclass(kind) and isinstance(value, dict):
        return _record(kind, value, where)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if type(value) is kind:
        return value
    expected = getattr(kind, "__name__", str(kind))
    raise InputError(f"{where} is {type(value).__name__}, not {expected}")


def _record(kind: Any, value: Mapping[str, Any], where: str) -> Any:
    """Build the dataclass `kind` from a JSON object; fields with defaults may be missing."""
    types = get_type_hints(kind)
    required = {
        field.name
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    }
    wrong = sorted((required - set(value)) | (set(value) - set(types)))
    if wrong:
        problem = "lacks" if wrong[0] in required else "has an unknown"
        raise InputError(f"{where} {problem} {wrong[0]!r}")
    return kind(
        **{name: _from_json(types[name], v, f"{where}.{name}") for name, v in value.items()}
    )
