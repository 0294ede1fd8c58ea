"""Holm's correction, on its author's arithmetic."""

import pytest

from openclimb.stats.multiple import comparison, holm, significant


def test_each_p_value_is_multiplied_by_the_comparisons_that_are_left() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_adjusted_values_keep_their_order_and_stay_below_one() -> None:
    assert holm([0.02, 0.021, 0.9]) == pytest.approx([0.06, 0.06, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.03]) == [0.03]


def test_a_number_that_is_no_p_value_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, 1.5])


def test_a_verdict_needs_significance_and_a_sign() -> None:
    assert comparison(0.1, 0.05) == "beaten"
    assert comparison(-0.1, 0.01) == "better"
    assert comparison(0.1, 0.051) == "not significant"
    assert significant(0.05)
