"""What the network learned: results and predictions."""

from __future__ import annotations

from collections.abc import Sequence

from tlnb.engine.arguments import whole_number
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.results.compare import Comparison, compare
from tlnb.engine.results.predict import Predictions, Predictor, predict
from tlnb.engine.results.results import Results, gather
from tlnb.session.saving import Saving


class Findings(Saving):
    """Judge the network, and use it."""

    def results(self, *, worst: int = 8) -> Results:
        """How good the network is on the validation samples, and where it goes wrong.

        Args:
            worst: how many of the worst mistakes are shown.

        Raises:
            NotReady: no model or no data.
        """
        whole_number(worst, "--worst", 0)
        self._need_ready()
        assert self._samples is not None
        return gather(self._need_model().model, self._need_data(), self._samples[1], self.device, worst=worst)

    def predict(self, source: object, *, views: int = 1) -> Predictions:
        """What the network says of files, a folder or arrays.

        Args:
            source: a picture file, a folder, files a line each, or arrays.
            views: how many views of each picture are averaged; 1 for the picture as it is.

        Raises:
            NotReady: no model or no data.
            DataError: no such file, or something that cannot be predicted on.
        """
        self._need_ready()
        assert self._samples is not None
        loaded, data = self._need_model(), self._need_data()
        preprocess: Preprocess = getattr(self._samples[1], "preprocess", loaded.preprocess)
        return predict(Predictor(loaded.model, data, preprocess, self.device), source, views=views)

    def compare(self, a: object = None, b: object = None, *names: object) -> Comparison:
        """Stages, rates and curves of several runs, or of this session, in one picture.

        Args:
            a, b: a run (what training answered), a history, a session, or a file that ``save`` wrote; nothing
                for this session alone.
            names: more of them.

        Raises:
            NotReady: nothing was trained.
            CheckpointError: no such file.
        """
        given: Sequence[object] = [source for source in (a, b, *names) if source is not None]
        return compare(given or [self.history])
