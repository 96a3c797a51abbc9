"""Elements of a page and of its pictures: text from outside is text, whatever signs it has."""

import re
from xml.etree.ElementTree import Element, tostring

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What no page may hold: control characters and broken ones."""

FOLDERS = re.compile(r"(?<![\w/.:<])(?:/|[A-Za-z]:\\)(?:[^/\\\s'\"]+[/\\])+(?=[^/\\\s'\"])")
"""The folders of a path from the root, in running text."""


def shown(text: str) -> str:
    """Returns a text with what cannot be printed written out, as in `\\x1b`."""
    return CONTROL.sub(lambda sign: ascii(sign[0])[1:-1], text)


def without_folders(text: str) -> str:
    """Returns a text in which paths from the root are file names: a report is passed on."""
    return FOLDERS.sub("", text)


def element(tag: str, /, *content: str | Element | None, **attributes: object) -> Element:
    """Returns an element of HTML or SVG.

    Args:
        tag: its name.
        *content: texts, which are escaped, and elements; None is left out.
        **attributes: `class_` stands for "class" and `text_anchor` for "text-anchor"; None is
            left out. They hold no text from outside.
    """
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    made = Element(tag, {key: str(value) for key, value in named.items() if value is not None})
    for part in content:
        if isinstance(part, Element):
            made.append(part)
        elif part is not None and len(made):
            made[-1].tail = (made[-1].tail or "") + shown(part)
        elif part is not None:
            made.text = (made.text or "") + shown(part)
    return made


def as_html(page: Element) -> str:
    """Returns the text of a page whose root is given."""
    return "<!DOCTYPE html>\n" + tostring(page, encoding="unicode", method="html") + "\n"
