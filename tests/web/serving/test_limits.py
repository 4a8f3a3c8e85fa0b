"""web/serving/limits.py: bytes held."""

from __future__ import annotations

import pytest

from cluster.errors import UnavailableError
from web.serving.limits import ByteBudget


def test_budget_refuses_what_does_not_fit_and_counts_what_is_given_back() -> None:
    budget = ByteBudget(100)
    budget.take(60)
    with pytest.raises(UnavailableError):
        budget.take(41)
    assert budget.held == 60
    budget.give_back(60)
    budget.take(100)
    assert budget.held == 100
