"""A session that a head was trained in, for tests that only look at it."""

from __future__ import annotations

import pytest

from tlnb.session import Session


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """``convnet5`` with a head for the digits; a test must leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLNB_HOME", str(tmp_path_factory.mktemp("home")))
        found = Session([])
        found.load("convnet5")
        found.data("digits", per_class=15)
        found.freeze("body")
        found.train(lr=2e-2, epochs=2)
    return found
