"""The data of a session."""

from __future__ import annotations

from tlnb.answers import Lines
from tlnb.engine.data import load as data
from tlnb.engine.data.grid import PictureGrid, picture_grid
from tlnb.errors import DataError
from tlnb.session.network import Network


def _again(named: data.Data) -> str:
    return str(named.asked["source"]) if named.asked is not None else "$name"


class Datasets(Network):
    """Name the data; the network is fitted to it."""

    def data(
        self,
        source: object = None,
        *,
        valid: float = 0.2,
        size: int | None = None,
        batch: int | None = None,
        per_class: int | None = None,
        augment: object = "none",
        balance: str | None = None,
        target: str | None = None,
        strict: bool = False,
        show: bool = False,
        seed: int = 0,
    ) -> data.Data | PictureGrid | Lines:
        """Name the data; a loaded network gets a new head where the classes are not those it knows.

        Args:
            source: ``digits``, ``glyphs``, a folder of class folders, a CSV of path and label,
                ``torchvision/NAME``, or an object: (X, y), a Dataset, a DataLoader, a Hugging Face data set.
                None for the data that is named already; the other settings but ``show`` then stay too.
                ``none`` drops the data: the network and its heads stay.
            valid: share of the samples to validate on, where the source has no split of its own.
            size: side of the training images in pixels, where it is not the network's own.
            batch: samples a step; None for what a DataLoader says, or by the amount of data (16, 32, 64).
            per_class: at most this many training samples of each class.
            augment: ``none``, ``light``, ``standard``, ``strong``, or a v2 transform.
            balance: ``weights`` of classes in the loss, or ``samples`` of small classes repeated.
            target: ``classes``, ``labels`` or ``regression``, where it cannot be told by the targets.
            strict: a file that cannot be used is an error.
            show: answer with a grid of training pictures, see :meth:`show_batch`.
            seed: of the split, the new head, the order of samples and dropout.

        Raises:
            NotReady: no source, and no data named before.
            DataError: nothing has changed then.
        """
        if isinstance(source, str) and source == "none":
            return self._without_data()
        if source is None:
            named = self._need_data()
            others = (valid, size, batch, per_class, augment, balance, target, strict, seed)
            if others != (0.2, None, None, None, "none", None, None, False, 0):
                raise DataError(
                    f"options need the data that they are for; name it too, such as: %tl_data {_again(named)}"
                )
            return self.show_batch() if show else named
        if show:
            self._need_model()
        fresh = data.load_data(
            source, valid=valid, per_class=per_class, batch=batch, seed=seed, size=size, augment=augment,
            balance=balance, target=target, strict=strict, progress=lambda *at: self._emit("on_check", *at),
        )  # fmt: skip
        if self._loaded is not None:
            self._fit_data(fresh)
        self._data = fresh
        self.revision += 1
        if not show:
            return fresh
        grid = self.show_batch()
        grid.text = f"{fresh!r}\n{grid.text}"
        return grid

    def _without_data(self) -> Lines:
        named = self._need_data()
        self._need_rest("the data can be dropped")
        task = self._tasks.get(self._task)
        if task is not None:
            task.data, task.samples = None, None
        self._data = self._samples = None
        self.revision += 1
        stays = (
            f"; {self._loaded.name} stays, with its head for {self._task}" if self._loaded is not None else ""
        )
        return Lines(f"{named.name} is dropped, and no data is named{stays}")

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
