"""What the tests of this folder share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.eventually import eventually


@pytest.fixture
async def no_task_is_left() -> AsyncIterator[None]:
    """Fail a test that leaves a task behind."""
    before = asyncio.all_tasks()
    yield
    own = asyncio.current_task()
    await eventually(lambda: not (asyncio.all_tasks() - before - {own}), 3.0)
