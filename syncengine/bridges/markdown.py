"""Texts with marks as Markdown, and back.

What a line of Markdown can say inside: bold, italic, code, strike and link. Other marks
are left out; headings, lists and the like are characters of the text, as they were
typed. Each line stands for itself. It is written in the simplest way that reads back as
the same: plain, with Markdown's own signs, or, where those would mean something else,
with tags of HTML. Parsed by `markdown-it-py` (the extra `markdown`).
"""

import html
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from markdown_it import MarkdownIt

from syncengine.crdt.marks import Span, changes, spliced
from syncengine.crdt.sequence.difference import rebased, text_splices
from syncengine.documents.text import Text

NAMES = ("bold", "code", "italic", "link", "strike")

_SIGNS = {"bold": "**", "italic": "*", "strike": "~~"}
_TAGS = {"bold": "strong", "italic": "em", "strike": "s", "code": "code"}
_NAME_OF_TAG = {
    "strong": "bold", "b": "bold", "em": "italic", "i": "italic", "s": "strike",
    "del": "strike", "code": "code",
}  # fmt: skip
_OPENED = {"strong_open": "bold", "em_open": "italic", "s_open": "strike"}
_CLOSED = {"strong_close": "bold", "em_close": "italic", "s_close": "strike"}

# From the outside in: a link holds bold text, not the other way round.
_ORDER = ("link", "bold", "italic", "strike", "code")

_SPECIAL = re.compile(r"([\\`*_\[\]<>&~!#|])")
_TAG = re.compile(r"<(/?)([a-z]+)(?:\s+href=\"([^\"]*)\")?\s*>", re.I)


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": True}).enable("strikethrough")


# --- reading --------------------------------------------------------------------------


def from_markdown(source: str) -> list[Span]:
    """Return the text that Markdown says, as spans."""
    found: list[Span] = []
    for number, line in enumerate(source.split("\n")):
        spans = list(_line(line))
        if number:
            before = found[-1].marks if found else {}
            after = spans[0].marks if spans else {}
            # A mark that goes on in the next line goes over its end.
            both = {k: v for k, v in before.items() if k in after and after[k] == v}
            spans.insert(0, Span("\n", both))
        for span in spans:
            _add(found, span)
    return found


def _add(found: list[Span], span: Span) -> None:
    if found and found[-1].marks == span.marks:
        found[-1] = Span(found[-1].text + span.text, span.marks)
    else:
        found.append(span)


def _line(line: str) -> Iterator[Span]:
    if not line:
        return
    parsed: Any = _parser().parseInline(line)
    marks: dict[str, Any] = {}
    for token in parsed[0].children or ():
        if token.type in _OPENED:
            marks[_OPENED[token.type]] = True
        elif token.type in _CLOSED:
            marks.pop(_CLOSED[token.type], None)
        elif token.type == "link_open":
            marks["link"] = token.attrs["href"]
        elif token.type == "link_close":
            marks.pop("link", None)
        elif token.type == "code_inline":
            yield Span(token.content, {**marks, "code": True})
        elif token.type == "html_inline":
            if not _tag(token.content, marks):
                yield Span(token.content, dict(marks))
        elif token.type == "image":
            yield Span(f"![{token.content}]({token.attrs['src']})", dict(marks))
        elif token.content:
            yield Span(token.content, dict(marks))


def _tag(tag: str, marks: dict[str, Any]) -> bool:
    """Let a tag of HTML begin or end a mark; tell whether it is one that does."""
    match = _TAG.fullmatch(tag)
    if match is None:
        return False
    ends, name, href = match[1] == "/", match[2].lower(), match[3]
    mark = "link" if name == "a" else _NAME_OF_TAG.get(name)
    if mark is None or (mark == "link" and not ends and href is None):
        return False
    if ends:
        marks.pop(mark, None)
    else:
        marks[mark] = True if mark != "link" else html.unescape(href)
    return True


# --- writing --------------------------------------------------------------------------


def to_markdown(text: Text | Iterable[Span]) -> str:
    """Return a text as Markdown, which `from_markdown` reads back.

    Of marks that stand over the end of a line and only one of its sides, the end of the
    line is forgotten; so are values that Markdown cannot say (a bold that is no True).
    """
    spans = text.spans() if isinstance(text, Text) else list(text)
    lines: list[list[Span]] = [[]]
    for characters, marks in spans:
        known = {k: v for k, v in marks.items() if k in NAMES and _fits(k, v)}
        first, *more = characters.split("\n")
        if first:
            _add(lines[-1], Span(first, known))
        for part in more:
            lines.append([Span(part, known)] if part else [])
    return "\n".join(map(_written, lines))


def _fits(name: str, value: Any) -> bool:
    return isinstance(value, str) if name == "link" else value is True


def _written(spans: list[Span]) -> str:
    for how in (_plain, _signed, _escaped):
        line = how(spans)
        if list(_merged(_line(line))) == spans:
            return line
    return _tagged(spans)


def _merged(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for span in spans:
        _add(found, span)
    return found


def _plain(spans: list[Span]) -> str:
    return "".join(span.text for span in spans)


def _signed(spans: list[Span]) -> str:
    return _nested(spans, str)


def _escaped(spans: list[Span]) -> str:
    return _nested(spans, _escape)


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def _nested(spans: list[Span], written: Any) -> str:
    """Return a line with Markdown's signs: those of each mark as far as it goes."""
    line: list[str] = []
    open_: list[tuple[str, Any]] = []
    for text, marks in [*spans, Span("", {})]:
        wanted = [(n, marks[n]) for n in _ORDER if n in marks and n != "code"]
        while open_ and open_ != wanted[: len(open_)]:
            line.append(_end(*open_.pop()))
        for name, value in wanted[len(open_) :]:
            line.append("[" if name == "link" else _SIGNS[name])
            open_.append((name, value))
        if "code" in marks:
            ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
            space = " " if text[:1] == "`" or text[-1:] == "`" else ""
            line.append(f"{ticks}{space}{text}{space}{ticks}")
        else:
            line.append(written(text))
    return "".join(line)


def _end(name: str, value: Any) -> str:
    if name != "link":
        return _SIGNS[name]
    return f"](<{value}>)" if re.search(r"[\s()]", value) else f"]({value})"


def _tagged(spans: list[Span]) -> str:
    """Return a line that says its marks by tags of HTML."""
    line: list[str] = []
    for text, marks in spans:
        names = [name for name in _ORDER if name in marks]
        for name in names:
            href = f' href="{html.escape(str(marks[name]))}"' if name == "link" else ""
            line.append(f"<{'a' if name == 'link' else _TAGS[name]}{href}>")
        line.append(_escape(text))
        line += [f"</{'a' if n == 'link' else _TAGS[n]}>" for n in reversed(names)]
    return "".join(line)


# --- editing --------------------------------------------------------------------------


def write_markdown(text: Text, source: str, before: str | None = None) -> int:
    """Make a draft's text what Markdown says, by edits where it differs; return how
    many.

    With `before`, the Markdown that somebody began with, only what is different between
    the two is done, wherever the text has come to since. Marks that Markdown does not
    know stay.
    """
    old = from_markdown(to_markdown(text) if before is None else before)
    new = from_markdown(source)
    was, is_ = ("".join(span.text for span in spans) for spans in (old, new))
    count = 0
    for at, deleted, inserted in rebased(was, is_, str(text)):
        count += 1
        if deleted:
            text.delete(at, deleted)
        if inserted:
            text.insert(at, inserted)
    for splice in text_splices(was, is_):
        old = spliced(old, *splice)
    # What was inserted bears what the draft gave it: say what it is to bear.
    here = _known(text.spans()) if str(text) == is_ else None
    places = text_splices(is_, str(text))
    for start, stop, name, value in changes(here if here is not None else old, new):
        begin, end = _shifted(places, start), _shifted(places, stop)
        if begin < end:
            count += 1
            if value is None:
                text.unmark(begin, end, name)
            else:
                text.mark(begin, end, name, value)
    return count


def _known(spans: Iterable[Span]) -> list[Span]:
    known = (Span(t, {n: v for n, v in m.items() if n in NAMES}) for t, m in spans)
    return _merged(known)


def _shifted(splices: list[tuple[int, int, str]], at: int) -> int:
    for pos, deleted, inserted in splices:
        if pos >= at:
            break
        at = max(pos, at - deleted) + len(inserted)
    return at
