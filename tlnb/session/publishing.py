"""The network as a folder of the Hub, and sent there when that is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from tlnb.display.tables import printable
from tlnb.engine.checkpoint.file import whole_files
from tlnb.engine.core.modules import duplicate
from tlnb.engine.core.objectives import kind_of
from tlnb.engine.core.tree import Batch
from tlnb.engine.data.samples import PictureSamples
from tlnb.engine.data.text_samples import TextSamples
from tlnb.engine.export import hub_folder, own_files
from tlnb.engine.export.card import card
from tlnb.engine.features.samples import show_bytes
from tlnb.engine.forgetting.measure import Forgetting
from tlnb.engine.models import catalogue
from tlnb.engine.models.hub import NEEDS, PREFIX
from tlnb.engine.models.loaded import LoadedModel
from tlnb.errors import ExportError, TlnbError, first_line
from tlnb.session.answers import Lines
from tlnb.session.reports import results
from tlnb.session.testing import looks_at
from tlnb.session.view import SessionView

_TRIED = 8  # samples
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_repository(path: object) -> bool:
    """Whether this names a repository of the Hub, not a file."""
    return isinstance(path, str) and path.startswith(PREFIX)


def publish(
    view: SessionView, path: str, forgotten: Callable[[], Forgetting | None], *, push: bool,
    settle: Callable[[], None],
) -> Lines:  # fmt: skip
    """Write the folder ``hf/OWNER/NAME``, read it back, and send it where that is asked for.

    Args:
        view: of the session.
        path: ``hf/OWNER/NAME``; also the folder, in the working directory.
        forgotten: measures what is left of the old task, for the card.
        push: send it to the Hub.
        settle: is called before the files take their place.

    Raises:
        NotReady: no model or no data.
        ExportError: no such name, a network that cannot be written so, or the Hub does not take it.
    """
    name = path.removeprefix(PREFIX).strip("/")
    if not _NAME.fullmatch(name) or ".." in name:
        raise ExportError(f"a repository of the Hub is named hf/OWNER/NAME, not {printable(path)!r}")
    view.need_ready()
    data, samples = view.need_data(), view.need_samples()[1]
    if data.sound is not None:
        raise ExportError(
            "no library of the Hub would draw sounds as this network needs them; %tl_export FILE.safetensors does"
        )
    loaded = view.need_model()
    network = _on_cpu(loaded)
    preprocess = samples.preprocess if isinstance(samples, PictureSamples | TextSamples) else None
    inputs = samples.batch(torch.arange(min(_TRIED, len(samples))))
    folder = Path(PREFIX) / name
    own_files.check(
        [folder / hub_folder.CARD, folder / "config.json"], folder / hub_folder.CARD, own_files.CARD
    )
    try:
        with whole_files(folder, first=hub_folder.CARD) as place:
            library = hub_folder.write(place, network, data.classes, kind_of(data.task), preprocess, inputs)
            verdict = _read_back(place, network, inputs)
            judged = results(view, worst=0)
            files = sorted(file.name for file in place.iterdir())
            front = hub_folder.front_matter(
                name.partition("/")[2], library, loaded, judged, texts=isinstance(samples, TextSamples),
                scored="validation",
            )  # fmt: skip
            text = card(
                loaded, judged, view.state.all_stages, files, verdict, forgotten(),
                takes=loaded.describe_input(), looks=looks_at(data),
            )  # fmt: skip
            loads = hub_folder.how_to_load(library, name, loaded, len(data.classes))
            (place / hub_folder.CARD).write_text(front + text + loads, encoding="utf-8")
            size = show_bytes(sum(file.stat().st_size for file in place.iterdir()))
            settle()
    except OSError as error:
        raise ExportError(f"cannot write {printable(str(folder))}: {error.strerror or error}") from None
    told = f"{folder}, {size}: {', '.join(files)}, {hub_folder.CARD}"
    sent = _push(folder, name) if push else "not sent; --push sends it to the Hub"
    return Lines(told, verdict, sent)


def _on_cpu(loaded: LoadedModel) -> LoadedModel:
    return replace(loaded, model=duplicate(loaded.model).cpu().eval())


def _read_back(place: Path, written: LoadedModel, inputs: Batch) -> str:
    """Load the folder as ``%tl_load`` does, and hold every weight and a few answers to the network's.

    Raises:
        ExportError: it cannot be loaded, or something differs.
    """
    try:
        found = catalogue.load_model(str(place))
    except TlnbError as error:
        raise ExportError(f"what was written cannot be read back: {error}") from None
    mine, other = written.model.state_dict(), found.model.state_dict()
    equal = mine.keys() == other.keys() and all(mine[key].equal(other[key]) for key in mine)
    if not equal or not hub_folder.answers(found.model, inputs).equal(
        hub_folder.answers(written.model, inputs)
    ):
        raise ExportError("what was written reads back otherwise; please report this network")
    return (
        f"read back: every weight is the same, bit for bit, and so are the answers to {len(inputs)} samples"
    )


def _push(folder: Path, name: str) -> str:
    """Send a folder to the Hub, by its own client and whoever is logged in there.

    Raises:
        ExportError: it is not installed, or the Hub does not take it; the folder stays.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise ExportError(NEEDS) from None
    try:
        api = HfApi()
        api.create_repo(name, exist_ok=True, private=None)
        commit = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Transferred with tlnb")
    except (HfHubHTTPError, OSError, ValueError) as error:  # OSError: no connection; ValueError: no token
        first = first_line(error)
        raise ExportError(
            f"{folder} is written; the Hub does not take it: {printable(first[:200])}"
        ) from None
    return f"sent: {commit.commit_url}"
