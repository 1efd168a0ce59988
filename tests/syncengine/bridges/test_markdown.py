"""Markdown: what is written is read back, whatever stands in the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import syncengine
from syncengine import Document, MarkRange, Span, Text
from syncengine.bridges.markdown import from_markdown, to_markdown, write_markdown


class Note(Document):
    body: Text = Text()


@pytest.mark.parametrize(
    ("source", "spans"),
    [
        ("plain", [Span("plain", {})]),
        ("a **b** c", [Span("a ", {}), Span("b", {"bold": True}), Span(" c", {})]),
        ("*i*", [Span("i", {"italic": True})]),
        ("***both***", [Span("both", {"bold": True, "italic": True})]),
        ("`a*b`", [Span("a*b", {"code": True})]),
        ("~~no~~", [Span("no", {"strike": True})]),
        ("[x](https://e.org)", [Span("x", {"link": "https://e.org"})]),
        ("snake_case", [Span("snake_case", {})]),
        ("# Title\n\n- item", [Span("# Title\n\n- item", {})]),
        ("**a\nb**", [Span("**a\nb**", {})]),
        ("**a**\n**b**", [Span("a\nb", {"bold": True})]),
        ("<b>x</b>", [Span("x", {"bold": True})]),
        ("<u>x</u>", [Span("<u>x</u>", {})]),
        ("", []),
    ],
)
def test_markdown_is_read_and_written(source: str, spans: list[Span]) -> None:
    assert from_markdown(source) == spans
    if not source.startswith("<b>"):
        assert to_markdown(spans) == source


def test_marks_that_markdown_does_not_know_are_left_out() -> None:
    assert to_markdown([Span("x", {"comment:1": "why", "bold": "heavy"})]) == "x"


marks = st.fixed_dictionaries(
    {},
    optional={
        "bold": st.just(True),
        "italic": st.just(True),
        "strike": st.just(True),
        "code": st.just(True),
        "link": st.sampled_from(["https://e.org/a_b", "x y", "a(b)", "#"]),
    },
)
characters = st.text(
    st.sampled_from("ab *_`~[]()<>&\\!#-\u00e9"), min_size=1, max_size=8
)
spans_ = st.lists(st.builds(Span, characters, marks), max_size=5)


def merged(spans: list[Span]) -> list[Span]:
    found: list[Span] = []
    for span in spans:
        if found and found[-1].marks == span.marks:
            found[-1] = Span(found[-1].text + span.text, span.marks)
        else:
            found.append(span)
    return found


@given(spans_)
def test_whatever_stands_in_a_line_comes_back(spans: list[Span]) -> None:
    spans = merged(spans)

    assert from_markdown(to_markdown(spans)) == spans


@given(st.text(st.sampled_from("ab *_`~[]<>&\n"), max_size=30))
def test_plain_text_comes_back(text: str) -> None:
    spans = [Span(text, {})] if text else []

    assert from_markdown(to_markdown(spans)) == spans


async def test_what_was_edited_as_markdown_is_written_where_it_differs() -> None:
    async with syncengine.open(":memory:") as replica:
        space = await replica.namespace("home")
        async with space.transaction() as tx:
            body = tx.create(Note, "1").body
            body.insert(0, "see here now")
            body.mark(4, 8, "bold")
            body.mark(0, 12, "comment:1", "hm")
        body = (await space.get(Note, "1")).body
        before = to_markdown(body)
        assert before == "see **here** now"
        async with space.transaction() as tx:  # somebody else, meanwhile
            tx.get(Note, "1").body.insert(0, "> ")
        async with space.transaction() as tx:
            body = tx.get(Note, "1").body
            count = write_markdown(body, "see *here* and **now**", before)
            assert count == 4
            assert str(body) == "> see here and now"
            shown = [m for m in body.marks() if m.name != "comment:1"]
            assert shown == [MarkRange(6, 10, "italic", True), MarkRange(15, 18, "bold", True)]  # fmt: skip
            assert any(m.name == "comment:1" for m in body.marks())
            assert write_markdown(body, to_markdown(body)) == 0
