"""Waits that tests can afford, and an environment without keys and proxies."""

import pytest

from openclimb.quality.annotation import endpoint


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.02)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in endpoint.KEYS:
        monkeypatch.delenv(name, raising=False)
