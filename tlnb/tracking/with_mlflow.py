"""MLflow: a run in a tracking server, or in a folder."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

EXPERIMENT = "tlnb"
LONGEST = 500  # letters of a parameter that every version and store of MLflow takes


class MLflow:
    """A run of its own: one that the notebook has under way is left alone.

    Args:
        where: the address of a server, or a folder; None for what MLflow is set to.
        name: of the run.
    """

    def __init__(self, where: str | None, name: str):
        from mlflow import MlflowClient

        if where and "://" not in where and where != "databricks":
            # Newer versions keep runs in a data base, and take a folder only where that is asked for.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            where = Path(where).expanduser().resolve().as_uri()
        self._client = MlflowClient(tracking_uri=where)
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self._client.get_experiment_by_name(title)
        number = experiment.experiment_id if experiment else self._client.create_experiment(title)
        self._run: str = self._client.create_run(number, run_name=name).info.run_id
        address = where or self._client.tracking_uri
        self.where = f"experiment {title}, run {name}; mlflow ui --backend-store-uri {address} shows it"

    def facts(self, values: Mapping[str, str]) -> None:
        """Parameters."""
        for name, value in values.items():
            self._client.log_param(self._run, name, value[:LONGEST])

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Metrics."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run, [Metric(name, value, now, step) for name, value in values.items()])

    def text(self, name: str, text: str) -> None:
        """An artifact."""
        self._client.log_text(self._run, text, name)

    def picture(self, name: str, png: bytes, step: int) -> None:
        """An artifact, its step in its name."""
        self._client.log_image(self._run, Image.open(io.BytesIO(png)), f"{name} at {step}.png")

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)
