"""Each subject in turn: what is tuned goes the same way for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tuned import TUNABLE

if TYPE_CHECKING:
    from tuned import Tunable


@pytest.fixture(scope="module", params=TUNABLE)
def of(request: pytest.FixtureRequest) -> Tunable:
    return TUNABLE[request.param]
