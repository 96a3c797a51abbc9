"""The report of an evaluation: a page with pictures and sounds, Markdown, and all of it as json.

Several checkpoints, evaluated alike, stand beside each other.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.report.compare import grouped
from tinymu_jax.evaluation.report.examples import heard_parts
from tinymu_jax.evaluation.report.html import page
from tinymu_jax.evaluation.report.markdown import markdown
from tinymu_jax.evaluation.results import EvalResult
from tinymu_jax.utils.files import make_folder, read_json_object, write_json, write_text

JSON_FILE, TEXT_FILE, PAGE_FILE = "report.json", "report.md", "report.html"

FORMAT = 2

AGAIN = "write it again with this version's `tinymu evaluate`"


def write_report(findings: Sequence[EvalResult], output: Path) -> Path:
    """Writes report.json, report.md and report.html to a folder; returns the path of the page.

    Args:
        findings: of one checkpoint or several. Those of the same kind and title are compared: the
            first checkpoint comes first.
        output: the folder, which is made.

    Raises:
        InputError: nothing was found; a table or picture has more or fewer values than columns,
            axes or labels; the folder cannot be written to.
    """
    if not findings:
        raise InputError(f"{output}: there are no findings to report; evaluate something first")
    for one in findings:
        _check(one)
    folder, groups = make_folder(output), grouped(findings)
    sounds = heard_parts(answer.audio for one in findings for answer in one.worst)
    write_json(folder / JSON_FILE, {"format": FORMAT, "results": _to_json(findings)})
    write_text(folder / TEXT_FILE, markdown(groups))
    write_text(folder / PAGE_FILE, page(groups, sounds))
    return folder / PAGE_FILE


def read_report(path: str | Path) -> list[EvalResult]:
    """Reads report.json back as it was written; lists come back as tuples.

    Args:
        path: of the file, or of its folder.

    Raises:
        InputError: it cannot be read, or is no such report; the key is named.
    """
    path = _report_file(Path(path))
    content = read_json_object(path, AGAIN)
    if content.get("format") != FORMAT:
        raise InputError(
            f"{path}: has format {content.get('format')!r}, this version reads {FORMAT}; {AGAIN}"
        )
    try:
        found = _from_json(Sequence[EvalResult], content.get("results"), "results")
        for one in found:
            _check(one)
    except InputError as error:
        raise InputError(f"{path}: {error}; {AGAIN}") from error
    return list(found)


def compare_reports(reports: Sequence[str | Path], output: Path) -> Path:
    """Writes one report of several, and returns the path of its page.

    Args:
        reports: their report.json, or folders; the first is what others are compared with.
        output: folder of the new report, no one of theirs.

    Raises:
        InputError: as `read_report` and `write_report`; the folder is one of theirs.
    """
    for report in reports:
        if _report_file(Path(report)).resolve().parent == Path(output).resolve():
            raise InputError(f"{output}: holds one of the reports; name another folder")
    return write_report([one for report in reports for one in read_report(report)], output)


def _report_file(path: Path) -> Path:
    return path / JSON_FILE if path.is_dir() else path


def _check(one: EvalResult) -> None:
    """Raises `InputError` where lists that belong together are not of one length, or a column
    comes twice."""
    pairs: list[tuple[str, Sequence[Any], Sequence[Any]]] = []
    for table in one.tables:
        pairs += [(f"{table.title}: row {n!r}", v, table.columns) for n, v in table.rows.items()]
    for radar in one.radars:
        pairs += [(f"{radar.title}: ring {n!r}", v, radar.axes) for n, v in radar.series.items()]
    for heat in one.confusions:
        rows = enumerate(heat.counts, 1)
        pairs.append((f"{heat.title}: the matrix", heat.counts, heat.labels))
        pairs += [(f"{heat.title}: row {n}", row, heat.labels) for n, row in rows]
    for bins in one.reliabilities:
        pairs.append((f"{bins.title}: accuracy", bins.accuracy, bins.confidence))
        pairs.append((f"{bins.title}: counts", bins.counts, bins.confidence))
    columns = [(t.title, t.columns) for t in one.tables] + [(r.title, r.axes) for r in one.radars]
    for title, names in columns:
        if len(set(names)) < len(names):
            twice = next(name for name in names if list(names).count(name) > 1)
            raise InputError(f"{title}: has {twice!r} twice where each column or axis is another")
    for name, values, wanted in pairs:
        if len(values) != len(wanted):
            raise InputError(f"{name} has {len(values)} values where {len(wanted)} belong")


def _to_json(value: Any) -> Any:
    """Returns what json can hold: numbers as they are, those that are none as null."""
    if is_dataclass(value):
        return {one.name: _to_json(getattr(value, one.name)) for one in fields(value)}
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
    raise TypeError(f"{type(value).__name__} has no place in findings")


def _from_json(kind: Any, value: Any, where: str) -> Any:
    """Returns a value of a type, `where` it stands; raises `InputError` if it is none."""
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
    wanted = getattr(kind, "__name__", str(kind))
    raise InputError(f"{where} is {type(value).__name__}, not {wanted}")


def _record(kind: Any, value: Mapping[str, Any], where: str) -> Any:
    """Returns a dataclass from its fields, of which those with defaults may be left out."""
    types = get_type_hints(kind)
    needed = {
        one.name
        for one in fields(kind)
        if one.default is MISSING and one.default_factory is MISSING
    }
    odd = sorted((needed - set(value)) | (set(value) - set(types)))
    if odd:
        missing = "lacks" if odd[0] in needed else "has an unknown"
        raise InputError(f"{where} {missing} {odd[0]!r}")
    return kind(
        **{name: _from_json(types[name], v, f"{where}.{name}") for name, v in value.items()}
    )
