"""What the pages take from elsewhere, so that it is written once.

<!-- readme: HEADING, table 1 -->      a table of the README's section of that heading
<!-- readme: HEADING, picture 1 -->    a picture of it
<!-- drawing: NAME.svg -->             a drawing of docs/pictures, as part of the page, so that
                                       it takes the page's colours
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

README = Path(__file__).parents[2] / "README.md"
DRAWINGS = Path(__file__).parents[1] / "pictures"
TAKEN = re.compile(r"<!-- readme: (?P<heading>.+), (?P<kind>table|picture) (?P<number>\d+) -->")
DRAWN = re.compile(r"<!-- drawing: (?P<name>\S+) -->")
PIECES = {
    "table": re.compile(r"^(?:\|.*\n)+", re.MULTILINE),
    "picture": re.compile(r"^!\[(?P<words>[^]]*)\]\((?P<path>[^)]+)\)$", re.MULTILINE),
}
HEADING = re.compile(r"^#+ (.+)\n", re.MULTILINE)
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def sections(text: str) -> dict[str, str]:
    """Returns a page's text under each heading, to the next heading of any level."""
    # A comment in a block of commands begins as a heading does.
    plain = CODE.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    found = list(HEADING.finditer(plain))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return {match[1]: text[match.end() : end] for match, end in zip(found, ends, strict=True)}


def taken(heading: str, kind: str, number: int, readme: str) -> str:
    """Returns a table or a picture of the README, the picture with its path in the site.

    Raises:
        PluginError: there is no such heading, or not so many.
    """
    text = sections(readme).get(heading)
    if text is None:
        raise PluginError(f"README.md has no heading {heading!r}; take from another")
    pieces = list(PIECES[kind].finditer(text))
    if not 1 <= number <= len(pieces):
        raise PluginError(f"README.md has {len(pieces)} {kind}s under {heading!r}, not {number}")
    piece = pieces[number - 1]
    if kind == "table":
        return piece[0]
    return f"![{piece['words']}]({_place(piece['path'])})"


def _place(path: str) -> str:
    """Returns where a picture of the README lies in the site."""
    return f"pictures/{Path(path).name}"


def drawing(name: str) -> str:
    """Returns a drawing to be set into a page."""
    text = (DRAWINGS / name).read_text("utf-8")
    return f'<div class="drawing">\n{text.strip()}\n</div>'


def on_files(files: Any, config: Any) -> Any:
    """Adds the README's pictures to the site's files."""
    for piece in PIECES["picture"].finditer(README.read_text("utf-8")):
        source = README.parent / piece["path"]
        files.append(File.generated(config, _place(piece["path"]), abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts what is taken in the place of its mark."""
    readme = README.read_text("utf-8")

    def put(mark: re.Match[str]) -> str:
        return taken(mark["heading"], mark["kind"], int(mark["number"]), readme)

    markdown = TAKEN.sub(put, markdown)
    return DRAWN.sub(lambda mark: drawing(mark["name"]), markdown)
