"""A report as one page: style, pictures and sounds stand in it, and no script runs."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from xml.etree.ElementTree import Element

from tinymu_jax.evaluation.report import charts as pictures
from tinymu_jax.evaluation.report.compare import Group, file_name, overlaid, same_titles
from tinymu_jax.evaluation.report.examples import Sound, marked
from tinymu_jax.evaluation.report.markup import as_html, element, without_folders
from tinymu_jax.evaluation.report.tables import (
    MISSING,
    Cell,
    Grid,
    aligned,
    figure,
    headline,
    legend,
    mistakes,
    settings,
    side_by_side,
)
from tinymu_jax.evaluation.results import Confusion, EvalResult, Example, Metric, Table

POLICY = "default-src 'none'; style-src 'unsafe-inline'; media-src data:; base-uri 'none'"
"""What the page may do: nothing is run, nothing is fetched."""

BARS = range(2, 41)
"""How many rows of a table are drawn as bars."""

SERIES = 4
"""Columns that are drawn beside each other, at most."""


def page(groups: Sequence[Group], sounds: Mapping[str, Sound]) -> str:
    """Returns the page.

    Args:
        groups: what stands in it, one after the other.
        sounds: of each recording that an answer is shown of, by its path.
    """
    title = " · ".join(group.title for group in groups)
    style = (files("tinymu_jax.evaluation.report") / "report.css").read_text("utf-8")
    names = list(dict.fromkeys(name for group in groups for name in group.names))
    several = len(groups) > 1
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title}: {', '.join(names)}"),
        element("style", style),
    )
    top = element("header", element("h1", title), element("p", ", ".join(names), class_="names"))
    links = [element("a", g.title, href=f"#part-{n}") for n, g in enumerate(groups, 1)]
    body = element(
        "main",
        top,
        _notices(groups),
        element("nav", *links, aria_label="Parts") if several else None,
        element("p", legend(groups), class_="legend"),
        *(_part(group, sounds, n if several else None) for n, group in enumerate(groups, 1)),
    )
    return as_html(element("html", head, element("body", body), lang="en"))


def _notices(groups: Sequence[Group]) -> Element | None:
    """Returns the box of what must be known first."""
    items = []
    for group in groups:
        for name, one in zip(group.names, group.findings, strict=True):
            before = [group.title] if len(groups) > 1 else []
            before += [name] if group.several else []
            opening = f"{', '.join(before)}: " if before else ""
            items += [element("li", opening + without_folders(text)) for text in one.notices]
    if not items:
        return None
    return element("aside", element("h2", "Read first"), element("ul", *items), class_="notices")


def _part(group: Group, sounds: Mapping[str, Sound], number: int | None) -> Element:
    """Returns all that was found in one evaluation; numbered where it is one of several."""
    titled = element("h2", group.title) if number else None
    level = 3 if number else 2
    made = element("section", titled, id=f"part-{number}" if number else None)
    made.extend(_headline(group, level))
    made.extend(_radars(group, level))
    for tables in same_titles(group, [one.tables for one in group.findings]):
        made.append(_table(tables, group.several, level))
    made.extend(_pictures(group, level))
    for name, one in zip(group.names, group.findings, strict=True):
        if one.worst:
            made.append(_worst(one, f" of {name}" if group.several else "", sounds, level))
    if any(one.settings for one in group.findings):
        made.append(_titled("Settings", level, _grid(settings(group), "words")))
    return made


def _titled(title: str, level: int, *content: Element | None) -> Element:
    return element("section", element(f"h{level}", title), *content)


def _headline(group: Group, level: int) -> list[Element]:
    """Returns cards of one checkpoint, a table and a picture of several."""
    grid = headline(group)
    if not grid.rows:
        return []
    if group.several:
        rows = [(name, [one.headline.get(name) for one in group.findings]) for name, _ in grid.rows]
        drawn = _bars("Headline", rows, group.names)
        return [
            _titled(grid.title, level, element("div", _grid(grid, "beside"), drawn, class_="pair"))
        ]
    cards = [_card(name, cells, grid.notes) for name, cells in grid.rows]
    return [_titled(grid.title, level, element("div", *cards, class_="cards"))]


def _card(name: str, cells: Sequence[Cell], notes: Sequence[str]) -> Element:
    """Returns a number with its interval and, beside it, what is published."""
    own, *many, known = cells
    count = f"n = {many[0].text}" if many and many[0].text else ""
    below = " · ".join(filter(None, (own.interval and f"95 %: {own.interval}", count)))
    text = own.text or "not measured"
    kind = "value none" if text in (MISSING, "not measured") else "value"
    explained = [element("p", notes[c.note - 1], class_="note") for c in (own, known) if c.note]
    return element(
        "div",
        element("h3", name),
        element("p", text, element("span", f" {own.unit}") if own.unit else None, class_=kind),
        element("p", below, class_="below") if below else None,
        element(
            "p",
            element("span", "published"),
            f" {known.text} {known.interval}".rstrip(),
            class_="published",
        )
        if known.text
        else None,
        *explained,
        class_="card",
    )


def _cell(cell: Cell) -> Element:
    small = [
        element("span", f" {text}", class_="small") for text in (cell.interval, cell.count) if text
    ]
    mark = element("sup", str(cell.note)) if cell.note else None
    return element("td", cell.text, mark, *small, class_="none" if cell.text == MISSING else None)


def _grid(grid: Grid, kind: str | None = None) -> Element:
    """Returns a table that scrolls by itself where the screen is narrow."""
    divided = any(below for _, below in grid.heads)
    first = element("tr", element("td", rowspan=2 if divided else None))
    second = element("tr")
    for name, below in grid.heads:
        span = {"colspan": len(below)} if below else {"rowspan": 2 if divided else None}
        first.append(_head(name, scope="colgroup" if below else "col", **span))
        second.extend(_head(own, scope="col") for own in below)
    rows = [
        element("tr", element("th", name, scope="row"), *map(_cell, cells))
        for name, cells in grid.rows
    ]
    head = element("thead", first, second if divided else None)
    made = element("table", head, element("tbody", *rows), class_=kind)
    notes = [element("li", note) for note in grid.notes]
    return element(
        "div",
        element("div", made, class_="scroll", tabindex=0) if rows else element("p", "No rows."),
        element("ol", *notes, class_="notes") if notes else None,
        *(element("p", remark, class_="note") for remark in grid.remarks),
        class_="table",
    )


def _head(name: str, **attributes: object) -> Element:
    """Returns the head of a column; the name of a checkpoint may be broken behind a slash."""
    first, *others = name.split("/")
    parts = [part for other in others for part in ("/", element("wbr"), other)]
    return element("th", first, *parts, **attributes)


def _table(tables: Sequence[tuple[str, Table]], several: bool, level: int) -> Element:
    """Returns tables of one title as one, and a picture of it."""
    grid = side_by_side(tables, several)
    columns, parts = aligned([table for _, table in tables])
    if several:
        # One column of several checkpoints, or several columns of one.
        series, title = [name for name, _ in tables], f"{grid.title}: {''.join(columns[:1])}"
        rows = [(row, cells[0]) for row, cells in parts.items() if cells]
    else:
        series, title = columns[:SERIES], grid.title
        rows = [(row, [own for (own,) in cells[:SERIES]]) for row, cells in parts.items()]
    pair = element(
        "div", _grid(grid, "beside" if several else None), _bars(title, rows, series), class_="pair"
    )
    return _titled(grid.title, level, pair)


def _bars(
    title: str, rows: Sequence[tuple[str, Sequence[Metric | None]]], series: Sequence[str]
) -> Element | None:
    """Returns a picture of the shares among measures; None where there are too few or many."""
    shares = [
        (name, [m if m and m.is_fraction and m.value is not None else None for m in measures])
        for name, measures in rows
    ]
    drawn = [(name, measures) for name, measures in shares if any(measures)]
    if len(drawn) not in BARS or len(series) > pictures.COLOURS:
        return None
    return _figure(pictures.bars(title, drawn, series), f"{title}, percent, with 95 % intervals")


def _figure(picture: Element, caption: str, kind: str = "fitting") -> Element:
    """Returns a picture that fits the screen, or a wide one that scrolls."""
    holder = element("div", picture, class_=f"scroll {kind}", tabindex=0)
    return element("figure", holder, element("figcaption", caption))


def _radars(group: Group, level: int) -> list[Element]:
    """Returns radars beside each other, those of too few or many axes as bars."""
    drawn = []
    for radars in same_titles(group, [one.radars for one in group.findings]):
        for title, axes, rings in overlaid(radars, group.several):
            if len(axes) in pictures.RADAR_AXES:
                picture = _figure(pictures.radar(title, axes, rings), "Percent, 0 at the centre")
            else:
                shares = [
                    (a, [Metric(ring.values[n]) for ring in rings]) for n, a in enumerate(axes)
                ]
                picture = _bars(title, shares, [ring.name for ring in rings])
            drawn.append(_titled(title, level, picture))
    return [element("div", *drawn, class_="pair")] if drawn else []


def _pictures(group: Group, level: int) -> list[Element]:
    """Returns confusions and reliabilities, those of one checkpoint beside each other."""
    made = []
    for name, one in zip(group.names, group.findings, strict=True):
        own = f" ({name})" if group.several else ""
        drawn = [_titled(heat.title + own, level, _confusion(heat)) for heat in one.confusions]
        for found in one.reliabilities:
            picture = _figure(pictures.reliability(found), "Right answers by confidence")
            drawn.append(_titled(found.title + own, level, picture))
        if drawn:
            made.append(element("div", *drawn, class_="pair"))
    return made


def _confusion(found: Confusion) -> Element:
    if len(found.labels) > pictures.HEAT_LABELS:
        return _grid(mistakes(found))
    caption = "Answers: a row is the right label, a column what was said; shaded by share of row"
    return _figure(pictures.confusion(found), caption, "wide")


def _worst(one: EvalResult, whose: str, sounds: Mapping[str, Sound], level: int) -> Element:
    """Returns the worst answers with what was heard."""
    items = [_answer(answer, sounds[answer.audio]) for answer in one.worst]
    return _titled(f"Worst answers{whose}", level, element("ol", *items, class_="answers"))


def _answer(answer: Example, sound: Sound) -> Element:
    """Returns a question, its recording, and what was answered."""
    score = "" if answer.score is None else f" · score {figure(answer.score, share=False)}"
    heard = (
        element("audio", controls="", preload="metadata", src=sound.source)
        if sound.source
        else element("p", f"Cannot be played: {sound.problem}", class_="problem")
    )
    named = element("figcaption", (file_name(answer.audio) or "no recording") + score)
    options = []
    for option, right, said in marked(answer):
        words = [element("b", word) for word, is_so in (("right", right), ("said", said)) if is_so]
        kind = "right" if right else "wrong" if said else None
        options.append(element("li", option, *words, class_=kind))
    told = element(
        "dl",
        element("dt", "wanted"),
        element("dd", answer.expected or "(nothing)"),
        element("dt", "said"),
        element("dd", answer.predicted or "(nothing)"),
    )
    return element(
        "li",
        element("figure", named, heard),
        element("p", answer.question, class_="question"),
        element("ol", *options, class_="options lettered" if len(options) > 2 else "options"),
        told,
    )
