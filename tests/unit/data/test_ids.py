"""Ids are text, whatever type a file has them in."""

import polars as pl

from components.data.ids import as_ids, is_given


def test_whole_numbers_are_ids_in_every_type() -> None:
    for kind in (pl.Int64, pl.UInt8, pl.Float64, pl.String):
        assert as_ids(pl.Series([7, None, 12], dtype=pl.Int64).cast(kind)).to_list() == ["7", None, "12"]


def test_categories_are_ids() -> None:
    assert as_ids(pl.Series(["b", "a"], dtype=pl.Categorical)).to_list() == ["b", "a"]


def test_fractions_and_infinities_are_no_ids() -> None:
    assert as_ids(pl.Series([1.5, float("inf"), float("nan"), 2.0])).to_list() == [None, None, None, "2"]


def test_text_is_kept_as_it_is() -> None:
    assert as_ids(pl.Series(["007", " x", "ü"])).to_list() == ["007", " x", "ü"]


def test_null_nan_and_blank_are_nothing() -> None:
    assert is_given(pl.Series(["a", "", "  ", None])).to_list() == [True, False, False, False]
    assert is_given(pl.Series([1.0, float("nan"), None])).to_list() == [True, False, False]
    assert as_ids(pl.Series(["a", "", "  ", None])).to_list() == ["a", None, None, None]
