"""What training costs, against epochs, photos and frozen layers: tlnb and a plain loop."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.jobs import Settings

EPOCHS = (1, 2, 4, 8)
PHOTOS = (60, 120, 240)
FROZEN = (0, 3, 5, 7, 9)


def draw(settings: Settings, path: Path) -> None:
    """Measure each point once and write the plot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    panels = ("head epochs", "photos (3 epochs)", "frozen layers (1 epoch, 10 layers)")
    for axis, title, points in zip(axes, panels, _points(settings), strict=True):
        for contestant, marker in (("plain", "o"), ("tlnb", "s")):
            xs, ys = zip(*points[contestant], strict=True)
            axis.plot(xs, ys, marker=marker, label={"plain": "plain loop"}.get(contestant, contestant))
        axis.set_xlabel(title)
        axis.set_yscale("log")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("seconds, everything counted")
    axes[0].legend()
    figure.savefig(path, dpi=110)


Points = dict[str, list[tuple[int, float]]]


def _points(settings: Settings) -> Iterator[Points]:
    yield _series((n, replace(settings, epochs=n)) for n in EPOCHS)
    with tempfile.TemporaryDirectory() as folder:
        yield _series((n, replace(settings, epochs=3, data=_fewer(settings.data, folder, n))) for n in PHOTOS)
    yield _series((n, replace(settings, epochs=1, frozen=n)) for n in FROZEN)


def _series(settings: Iterator[tuple[int, Settings]]) -> Points:
    from tests.benchmarks.speed import measure

    points: Points = {"plain": [], "tlnb": []}
    for x, chosen in settings:
        for contestant, line in points.items():
            line.append((x, measure(contestant, "head", chosen)["seconds"]))
    return points


def _fewer(data: str, folder: str, count: int) -> str:
    """A folder of links to so many training photos, and to all for validation."""
    place = Path(folder) / str(count)
    for part in ("train", "val"):
        for of_class in sorted(p for p in (Path(data) / part).iterdir() if p.is_dir()):
            target = place / part / of_class.name
            target.mkdir(parents=True)
            photos = sorted(of_class.iterdir())
            for photo in photos[: count // 2] if part == "train" else photos:
                (target / photo.name).symlink_to(photo.resolve())
    return str(place)
