"""The data of a session."""

from __future__ import annotations

from typing import Any

from tlnb.engine.data import load as data
from tlnb.engine.data.grid import PictureGrid, picture_grid
from tlnb.engine.data.request import SourceRequest, takes_request
from tlnb.errors import DataError
from tlnb.session.network import Network


def _again(named: data.Data) -> str:
    return str(named.asked["source"]) if named.asked is not None else "$name"


class Datasets(Network):
    """Name the data; the network is fitted to it."""

    @takes_request
    def data(self, source: object = None, *, show: bool = False, **options: Any) -> data.Data | PictureGrid:
        """Name the data; a loaded network gets a new head where the classes are not those it knows.

        Args:
            source: ``digits``, ``glyphs``, a folder of class folders, a CSV of path and label,
                ``torchvision/NAME``, or an object: (X, y), a Dataset, a DataLoader, a Hugging Face data set.
                None for the data that is named already; the other settings but ``show`` then stay too.
            show: answer with a grid of training pictures, see :meth:`show_batch`.
            options: how it is read, see below.

        Raises:
            NotReady: no source, and no data named before.
            DataError: nothing has changed then.
        """
        request = SourceRequest.of(**options)
        if source is None:
            named = self._need_data()
            if request != SourceRequest():
                raise DataError(
                    f"options need the data that they are for; name it too, such as: %tl_data {_again(named)}"
                )
            return self.show_batch() if show else named
        if show:
            self._need_model()
        fresh = data.load_data(source, request, progress=lambda *at: self._emit("on_check", *at))
        if self._loaded is not None:
            self._fit_data(fresh)
        self._data = fresh
        self.revision += 1
        if not show:
            return fresh
        grid = self.show_batch()
        grid.text = f"{fresh!r}\n{grid.text}"
        return grid

    def show_batch(self, count: int = 12, *, epoch: int = 0) -> PictureGrid:
        """Training pictures as the network sees them, augmentation included.

        Args:
            count: how many.
            epoch: whose order and random changes.

        Raises:
            NotReady: no model or no data yet.
            DataError: the data holds no pictures.
        """
        self._need_model()
        source = self._need_data()
        if self._samples is None:
            raise DataError("the data is not fitted to the network yet")
        return picture_grid(source, self._samples[0], count, epoch)
