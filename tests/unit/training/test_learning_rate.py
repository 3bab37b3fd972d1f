import pytest

from components.training.learning_rate import learning_rate_share


def test_the_learning_rate_rises_in_a_line_and_falls_in_a_cosine() -> None:
    shares = [learning_rate_share(step / 1000, warmup_share=0.2, final_share=0.1) for step in range(1001)]
    assert shares[100] == pytest.approx(0.5) and shares[200] == pytest.approx(1.0)
    assert shares[600] == pytest.approx(0.55) and shares[1000] == pytest.approx(0.1)
    assert min(shares) > 0 and max(shares) == pytest.approx(1.0)
    assert shares[200:] == sorted(shares[200:], reverse=True)


def test_without_warm_up_the_peak_comes_first() -> None:
    assert learning_rate_share(0.0, warmup_share=0.0, final_share=0.1) == 1.0
