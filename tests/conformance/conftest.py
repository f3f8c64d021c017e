"""Sessions that many tests share. Tests of one session stand together: it is started once, and ended before the next begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from places import CONTEXT, LARGE_CONTEXT, Place, small_model, small_plan, smollm2, smollm2_plan

from unitp.session.launch import launch
from unitp.session.session import Session

Watched = Callable[[], AbstractContextManager[Any]]


@pytest.fixture(scope="session")
def small(request: pytest.FixtureRequest, watched_for_long: Watched) -> Iterator[Session]:
    """The small model at a place."""
    place: Place = request.param
    plan = small_plan(place.mesh)
    with (
        watched_for_long(),
        launch(small_model(), plan, place.backend, dtype=place.dtype, context=CONTEXT) as session,
    ):
        yield session


@pytest.fixture(scope="session")
def large(request: pytest.FixtureRequest, watched_for_long: Watched) -> Iterator[Session]:
    """SmolLM2 on two ranks of a backend."""
    plan = smollm2_plan("tp=2")
    with watched_for_long(), launch(smollm2(), plan, request.param, context=LARGE_CONTEXT) as session:
        yield session


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests without a shared session come first, then those of one after the other; in each, those marked `first`."""

    def shared(item: pytest.Item) -> tuple[tuple[str, ...], bool]:
        given = item.callspec.params if hasattr(item, "callspec") else {}
        where = tuple(word for name in ("small", "large") if name in given for word in (name, str(given[name])))
        return where, item.get_closest_marker("first") is None

    items.sort(key=shared)
