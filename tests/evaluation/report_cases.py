"""A result whose numbers are easy to recognize, and a parser of report pages."""

from dataclasses import replace
from html.parser import HTMLParser

from tinymu_jax.evaluation.report.build import write_report
from tinymu_jax.evaluation.results import (
    Confusion,
    EvalResult,
    Example,
    Metric,
    Radar,
    Reliability,
    Table,
)

VOID = {"meta", "br", "wbr", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """A page's elements in order, each with its attributes and its text; refuses what is open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.words.append(data)
        for _, _, words in self.open:
            words.append(data)

    def texts(self, tag, kind=None):
        """Returns the text of each element of a name and, if given, a class."""
        return [
            " ".join("".join(words).split())
            for name, attributes, words in self.elements
            if name == tag and (kind is None or kind in (attributes.get("class") or "").split())
        ]


def eval_result(**fields):
    """Returns a result with parts of all kinds, whose numbers can be read at sight."""
    radar = Radar(
        "Categories", ("melody", "mood", "lyrics"), {"m": (0.8, 0.4, 0.2), "blind": (0.3,) * 3}
    )
    base = EvalResult(
        kind="MuChoMusic",
        title="MuChoMusic",
        checkpoint="/data/runs/sft/checkpoints/1200",
        headline={
            "accuracy": Metric(0.586, 0.558, 0.614, 1187),
            "BLEU": Metric(6.25, is_fraction=False),
        },
        tables=(
            Table(
                "By rule",
                ("official", "strict"),
                {
                    "all": (Metric(0.586, 0.558, 0.614, 1187), Metric(0.5, count=1187)),
                    "lyrics": (Metric(None, note="unavailable: none was asked"), None),
                },
                note="Read with care.",
            ),
        ),
        notices=("2 questions are left out: /data/audio/a.mp3 is missing",),
        radars=(radar,),
        confusions=(Confusion("Genres", ("rock", "jazz"), ((3, 1), (0, 4))),),
        reliabilities=(Reliability("Sure", (0.25, 0.75), (0.2, 0.9), (10, 30), 0.125),),
        published={"accuracy": Metric(0.59, note="of a preprint")},
        settings={"questions": "/data/questions.csv", "seed": "3"},
    )
    return replace(base, **fields)


def answer(audio="", predicted="(B) slow", **fields):
    """Returns a wrong answer."""
    return Example(
        str(audio), "How fast is it?", "(A) fast", predicted, options=("fast", "slow"), **fields
    )


def written(tmp_path, *result):
    """Returns the page of a report and its Markdown."""
    path = write_report(result, tmp_path / "out")
    assert path == tmp_path / "out" / "report.html"
    return Page(path.read_text("utf-8")), (tmp_path / "out" / "report.md").read_text("utf-8")
