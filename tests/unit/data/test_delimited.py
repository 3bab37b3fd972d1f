"""Delimited text is read in blocks, and a block boundary changes nothing."""

from io import BytesIO

import polars as pl
import pytest

from components.data.delimited import Layout, blocks


def read(text: str, layout: Layout, size: int = 1 << 20) -> pl.DataFrame:
    return pl.concat(list(blocks(BytesIO(text.encode(layout.encoding)), layout, size)))


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_separators_of_several_characters_are_read(size: int) -> None:
    layout = Layout(separator="::", columns=["id", "title"])
    table = read("1::Toy: Story::Animation\n2::A|B, C::x\n", layout, size)
    assert table.rows() == [("1", "Toy: Story"), ("2", "A|B, C")]


def test_a_header_is_passed_over_once() -> None:
    layout = Layout(separator=",", columns=["user", "item"], header=True)
    assert read("userId,movieId,x\n1,2,3\n4,5,6", layout, size=2).rows() == [("1", "2"), ("4", "5")]


def test_quotes_count_only_where_the_layout_says_so() -> None:
    plain = Layout(separator="|", columns=["id", "title"])
    assert read('1|"A" b|x\n', plain).rows() == [("1", '"A" b')]
    quoted = Layout(separator=",", columns=["id", "title"], quoted=True)
    assert read('1,"American President, The (1995)",x\n', quoted).rows() == [("1", "American President, The (1995)")]


def test_latin_1_is_decoded() -> None:
    layout = Layout(separator="|", columns=["id", "title"], encoding="latin-1")
    assert read("543|Misérables, Les (1995)|x\n", layout).rows() == [("543", "Misérables, Les (1995)")]
