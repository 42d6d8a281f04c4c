"""The notebooks named ``test-TOPIC-fail-NOTE`` must fail: ``tests/test_notebooks_can_fail.py`` runs them."""

from __future__ import annotations

collect_ignore_glob = ["test-*-fail-*.ipynb"]
