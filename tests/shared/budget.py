"""How many examples the property tests that take long try: all in `make test-all`, a part in `make test`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def examples(count: int) -> settings:
    """`count` examples, or 30 % of them under the profile `quick` (tests/conftest.py); always the same ones."""
    part = count * 3 // 10 if settings.get_current_profile_name() == "quick" else count
    return settings(max_examples=part, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
