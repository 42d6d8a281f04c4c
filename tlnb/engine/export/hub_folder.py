"""The network as a folder of the Hub: what transformers, timm or plain PyTorch reads, with labels and preprocessing.

What kind of folder it is follows from where the network came from. Each is tried before it counts as written: the
architecture is built anew by its own library, and must take these very weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tlnb.engine.core.objectives import scores_of
from tlnb.engine.core.tree import Batch, call
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.tokens import AnyPreprocess, TextPreprocess
from tlnb.engine.models import hub, published, timm_models
from tlnb.engine.models.hub import CONFIG, PLAIN, WEIGHTS
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.models.published import CONVNET5, torchvision_names
from tlnb.engine.results.results import Results
from tlnb.errors import ExportError, ModelError

CARD = "README.md"
_RESAMPLE = {"nearest": 0, "bilinear": 2, "bicubic": 3}  # as Pillow numbers them
_METRICS = {
    "balanced": "balanced_accuracy",
    "auroc": "roc_auc",
    "ap": "average_precision",
}  # as the Hub calls them
_OWN_WAY = "%tl_export FILE.safetensors or FILE.pt2 takes it as it is"


def write(
    place: Path, loaded: LoadedModel, classes: Sequence[str], kind: str, preprocess: AnyPreprocess | None,
    inputs: Batch,
) -> str:  # fmt: skip
    """Write weights, configuration, labels and preprocessing.

    Args:
        place: an empty folder.
        loaded: the network, on the CPU.
        classes: names of the outputs.
        kind: of the task: ``classes``, ``labels`` or ``values``.
        preprocess: of its pictures or texts, as it was trained.
        inputs: a few samples, that the network as its library builds it must answer alike.

    Returns:
        The library that reads the folder: ``transformers``, ``timm`` or ``pytorch``.

    Raises:
        ExportError: no library could build this network, and why.
    """
    if kind == "values":
        raise ExportError(f"measured values have a unit, which such a folder cannot hold; {_OWN_WAY}")
    if preprocess is None:
        raise ExportError(f"inputs of its own kind have no name on the Hub; {_OWN_WAY}")
    build = _Builder(loaded.model, inputs)
    labels = {str(number): name for number, name in enumerate(classes)}
    if loaded.recipe is not None:
        _transformers(place, loaded, build, labels, kind, preprocess)
        return "transformers"
    if not isinstance(preprocess, Preprocess):
        raise ExportError(f"a text network of your own has no name that others could build it by; {_OWN_WAY}")
    if loaded.name.startswith(timm_models.PREFIX):
        _timm(place, loaded, build, classes, preprocess)
        return "timm"
    if loaded.name == CONVNET5 or loaded.name in torchvision_names():
        _plain(place, loaded, build, labels, preprocess)
        return "pytorch"
    raise ExportError(f"a network of your own has no name that others could build it by; {_OWN_WAY}")


def _transformers(
    place: Path, loaded: LoadedModel, build: _Builder, labels: dict[str, str], kind: str,
    preprocess: AnyPreprocess,
) -> None:  # fmt: skip
    assert loaded.recipe is not None
    if loaded.recipe["kind"] == hub.ENCODER:
        raise ExportError(
            "a text encoder with a head of its own has no class in transformers; start from a network for "
            f"classification, or: {_OWN_WAY}"
        )
    recipe = loaded.recipe
    config = {**recipe["config"], "num_labels": len(labels)}
    fresh: Any = build(lambda: hub.build({**recipe, "config": config}))
    fresh.config.id2label = {int(number): name for number, name in labels.items()}
    fresh.config.label2id = {name: int(number) for number, name in labels.items()}
    fresh.config.problem_type = _problem(kind)
    fresh.config.architectures = [type(fresh).__name__]
    fresh.save_pretrained(place, safe_serialization=True)
    if isinstance(preprocess, TextPreprocess):
        (place / "tokenizer.json").write_text(preprocess.tokenizer, encoding="utf-8")
        told = {"model_max_length": preprocess.most, "tokenizer_class": "PreTrainedTokenizerFast"}
        _json(place / "tokenizer_config.json", told | _special(preprocess))
    else:
        _json(place / "preprocessor_config.json", image_processor(preprocess))


def _problem(kind: str) -> str:
    return "single_label_classification" if kind == "classes" else "multi_label_classification"


def _special(preprocess: TextPreprocess) -> dict[str, str]:
    """The token that texts are filled up with, by its name."""
    vocabulary = json.loads(preprocess.tokenizer).get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # unigram: pairs of token and score, in order
        vocabulary = {pair[0]: number for number, pair in enumerate(vocabulary)}
    pad = next((token for token, number in vocabulary.items() if number == preprocess.pad), None)
    return {} if pad is None else {"pad_token": pad}


def image_processor(preprocess: Preprocess) -> dict[str, Any]:
    """Preprocessing as an image processor of transformers says it."""
    height, width = preprocess.size
    crop = preprocess.resize is not None
    sizes: dict[str, Any] = {"size": {"height": height, "width": width}}
    if crop:
        sizes = {
            "size": {"shortest_edge": preprocess.resize},
            "crop_size": {"height": height, "width": width},
        }
    return {
        "image_processor_type": "CLIPImageProcessor" if crop else "ViTImageProcessor",
        "do_resize": True, "do_center_crop": crop, **sizes, "resample": _RESAMPLE[preprocess.interpolation],
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": list(preprocess.mean), "image_std": list(preprocess.std),
    }  # fmt: skip


def _timm(
    place: Path, loaded: LoadedModel, build: _Builder, classes: Sequence[str], preprocess: Preprocess
) -> None:
    import timm

    full = loaded.name.removeprefix(timm_models.PREFIX)
    base, _, tag = full.partition(".")
    fresh: Any = build(lambda: timm.create_model(base, pretrained=False, num_classes=len(classes)))
    height, width = preprocess.size
    squash = preprocess.resize is None
    usual = fresh.pretrained_cfg or {}
    _json(place / CONFIG, {
        "architecture": base, "num_classes": len(classes), "num_features": fresh.num_features,
        "pretrained_cfg": {
            "tag": tag, "custom_load": False, "input_size": [preprocess.channels, height, width],
            "interpolation": preprocess.interpolation, "crop_mode": "squash" if squash else "center",
            "crop_pct": 1.0 if preprocess.resize is None else min(height, width) / preprocess.resize,
            "mean": list(preprocess.mean), "std": list(preprocess.std), "num_classes": len(classes),
            "first_conv": usual.get("first_conv"), "classifier": usual.get("classifier"),
            "label_names": list(classes),
        },
    })  # fmt: skip
    _weights(place, build.state, classes, preprocess)


def _plain(
    place: Path, loaded: LoadedModel, build: _Builder, labels: dict[str, str], preprocess: Preprocess
) -> None:
    size = preprocess.size[0]
    build(lambda: published.build(loaded.name, classes=len(labels), image_size=size))
    _json(place / CONFIG, {
        "library_name": PLAIN, "architecture": loaded.name, "num_labels": len(labels), "id2label": labels,
        "image_size": size, "preprocess": preprocess.to_dict(),
    })  # fmt: skip
    _json(place / "preprocessor_config.json", image_processor(preprocess))
    _weights(place, build.state, list(labels.values()), preprocess)


def _weights(place: Path, state: dict[str, Tensor], classes: Sequence[str], preprocess: Preprocess) -> None:
    about = {
        "format": "pt",
        "classes": json.dumps(list(classes)),
        "preprocess": json.dumps(preprocess.to_dict()),
    }
    save_file(state, place / WEIGHTS, metadata=about)


class _Builder:
    """Has a library build the architecture, and gives it the network's weights.

    Args:
        model: the network.
        inputs: a few samples.

    Attributes:
        state: its weights and buffers.
    """

    def __init__(self, model: nn.Module, inputs: Batch):
        self._model, self._inputs = model, inputs
        self.state = {name: t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()}

    def __call__(self, make: Callable[[], nn.Module]) -> nn.Module:
        """The network as it is built.

        Raises:
            ExportError: its weights are others, or it answers otherwise: its head, or something else, was changed.
        """
        try:
            with torch.random.fork_rng():
                fresh = make().eval()
            fresh.load_state_dict(self.state)
        except ModelError as error:
            raise ExportError(str(error)) from None
        except RuntimeError:
            raise ExportError(
                f"with its present head the network is none that its library builds (a linear head is); {_OWN_WAY}"
            ) from None
        if not torch.equal(answers(fresh, self._inputs), answers(self._model, self._inputs)):
            raise ExportError(
                "as its library builds it the network answers otherwise, since behind its new head stands no "
                f"activation; {_OWN_WAY}"
            )
        return fresh


@torch.no_grad()
def answers(model: nn.Module, inputs: Batch) -> Tensor:
    """Scores (B, outputs) of a network in test mode."""
    return scores_of(call(model, inputs))


def _json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def front_matter(
    name: str, library: str, loaded: LoadedModel, results: Results, *, texts: bool, scored: str
) -> str:
    """What the Hub reads of a card: YAML, whose values are written as JSON, which is YAML too.

    Args:
        name: of the repository.
        library: that reads it.
        loaded: the network.
        results: of the validation samples.
        texts: whether it takes texts.
        scored: the part of the data that the figures are of.
    """
    task = "text-classification" if texts else "image-classification"
    figures = {results.metric: results.figure_value}
    if results.kind == "classes":
        figures["accuracy"] = results.accuracy
    metrics = [
        {"type": _METRICS.get(metric, metric), "value": round(value, 6), "name": f"{metric} ({scored})"}
        for metric, value in figures.items()
    ]
    dataset = {"name": results.name, "type": "other", "split": scored}
    values: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": task,
        "tags": ["tlnb", "transfer-learning"],
        "model-index": [
            {"name": name, "results": [{"task": {"type": task}, "dataset": dataset, "metrics": metrics}]}
        ],
    }
    if loaded.name.startswith(hub.PREFIX):
        values["base_model"] = loaded.name.removeprefix(hub.PREFIX)
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def how_to_load(library: str, name: str, loaded: LoadedModel, count: int) -> str:
    """The end of the card: the lines that load the network.

    Args:
        library: that reads the folder.
        name: of the repository.
        loaded: the network.
        count: of its outputs.
    """
    if library == "timm":
        code = ["import timm", "", f'model = timm.create_model("hf-hub:{name}", pretrained=True).eval()']
    elif library == "transformers":
        auto = type(loaded.model).__name__
        code = [f"from transformers import {auto}", "", f'model = {auto}.from_pretrained("{name}").eval()']
    else:
        own = loaded.name == CONVNET5
        make = "build" if own else "torchvision.models.get_model"
        code = [
            "from tlnb.engine.models.published import build" if own else "import torchvision",
            "from huggingface_hub import hf_hub_download",
            "from safetensors.torch import load_file",
            "",
            f'model = {make}("{loaded.name}", {"classes" if own else "num_classes"}={count})',
            f'model.load_state_dict(load_file(hf_hub_download("{name}", "{WEIGHTS}")))',
            "model.eval()",
        ]
    lines = ["", "## How to load it", "", "```python", *code, "```", "", f"With tlnb: `%tl_load hf/{name}`."]
    return "\n".join([*lines, ""])
