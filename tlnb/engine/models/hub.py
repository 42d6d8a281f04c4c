"""Networks of Hugging Face: from the Hub or a folder, with the tokenizer or image processor that belongs to them.

Weights come from safetensors alone, and no code that stands beside them runs.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlnb.display.tables import few, printable
from tlnb.engine.core.tree import IDS, MASK, TYPES
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.tokens import INPUTS, TextPreprocess
from tlnb.engine.models.encoder import TextEncoder
from tlnb.engine.models.loaded import RANDOM, LoadedModel
from tlnb.engine.network.head import find_head
from tlnb.errors import ModelError, WeightsError, first_line

PREFIX = "hf/"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PLAIN, TIMM = "tlnb", "timm"
"""Folders that hold a network of torchvision, convnet5 or timm: what ``library_of`` calls them."""

NEEDS = 'networks of Hugging Face need transformers: pip install "tlnb[hf]"'
ENCODER, TEXT, IMAGE = "encoder", "text", "image"
_FILES = (
    CONFIG, "modules.json", "sentence_bert_config.json", "1_Pooling/config.json", "preprocessor_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "spm.model", "tokenizer.model",
    "model.safetensors", "model.safetensors.index.json", "model-*.safetensors",
)  # fmt: skip
_INTERPOLATIONS = {0: "nearest", 2: "bilinear", 3: "bicubic"}
_UNBOUNDED = 1 << 20  # tokenizers without a longest text say a number above this
Log = Callable[[str], None]


def is_folder(name: str) -> bool:
    """Whether this is a folder with a network of transformers."""
    try:
        return "\0" not in name and (Path(name).expanduser() / CONFIG).is_file()
    except (OSError, RuntimeError):
        return False


def library_of(folder: Path) -> str:
    """Whose network a folder holds, by its ``config.json``: ``PLAIN``, ``TIMM``, or empty for transformers'."""
    told = _json(folder / CONFIG)
    if not isinstance(told, dict) or not isinstance(told.get("architecture"), str):
        return ""
    if told.get("library_name") == PLAIN:
        return PLAIN
    return TIMM if isinstance(told.get("pretrained_cfg"), dict) else ""


def architecture_of(folder: Path) -> str:
    """What a folder that is not transformers' calls its architecture, timm's tag included."""
    told = _json(folder / CONFIG)
    cfg = told.get("pretrained_cfg")
    tag = cfg.get("tag") if isinstance(cfg, dict) else ""
    return f"{told['architecture']}.{tag}" if tag and isinstance(tag, str) else str(told["architecture"])


def load(name: str, weights: str | None, folder: Path, commit: str) -> LoadedModel:
    """A network of transformers from a folder.

    Args:
        name: what the user called it.
        weights: None for its own, ``none`` for random ones.
        folder: with a ``config.json``.
        commit: by which it is known.

    Raises:
        ModelError: transformers cannot build it without code of its own.
        WeightsError: its weights cannot be had, or are no safetensors.
    """
    transformers = _transformers()
    if weights not in (None, "none"):
        raise WeightsError(f"--weights takes none (random) for a network of Hugging Face, not {weights!r}")
    config = _config(transformers, folder, name)
    kind = _kind(transformers, folder, config)
    recipe: dict[str, Any] = {"kind": kind, "config": _plain_config(config), **_pooled_as(folder, kind)}
    knows = kind != ENCODER and any("ForSequence" in a or "ForImage" in a for a in config.architectures or ())
    if not knows and kind != ENCODER:
        recipe["config"] = {**recipe["config"], "num_labels": 1}
    model = _filled(transformers, folder, recipe, name) if weights is None else build(recipe)
    notes = list(recipe.pop("notes", ()))
    categories: tuple[str, ...] | None = ()  # a head that knows nothing yet
    if knows:
        categories = (
            tuple(str(config.id2label[i]) for i in range(config.num_labels)) if config.id2label else None
        )
    preprocess: Preprocess | TextPreprocess
    if kind == IMAGE:
        preprocess = image_preprocess(folder, config)
        head = find_head(model)
    else:
        preprocess = text_preprocess(folder, model, transformers)
        head = "head" if kind == ENCODER else find_head(model)
    label = RANDOM if weights is not None else commit
    return LoadedModel(
        model, name, label, preprocess, categories if weights is None else None, head, notes=tuple(notes),
        task=name if knows else f"{name} (new)", fresh=partial(build, recipe), recipe=recipe,
    )  # fmt: skip


def build(recipe: Mapping[str, Any]) -> nn.Module:
    """The architecture of a recipe with random weights from torch's global generator; no code of a file runs.

    Raises:
        ModelError: transformers is not here, or does not know it.
    """
    transformers = _transformers()
    values = {k: v for k, v in recipe["config"].items() if k not in ("auto_map", "model_type", "num_labels")}
    try:
        config = transformers.AutoConfig.for_model(recipe["config"]["model_type"], **values)
        if "num_labels" in recipe["config"]:
            config.num_labels = int(recipe["config"]["num_labels"])
        with _silent(transformers):
            if recipe["kind"] == IMAGE:
                return transformers.AutoModelForImageClassification.from_config(config).eval()
            if recipe["kind"] == TEXT:
                return transformers.AutoModelForSequenceClassification.from_config(config).eval()
            body = transformers.AutoModel.from_config(config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"transformers cannot build this network: {_line(error)}") from None
    return _with_head(body, recipe)


def _with_head(body: nn.Module, recipe: Mapping[str, Any]) -> nn.Module:
    _drop_pooler(body)
    made = TextEncoder(body, _width(body), 1, str(recipe["how"]), bool(recipe["normalise"]))
    nn.init.zeros_(made.head.weight)
    nn.init.zeros_(made.head.bias)
    return made.eval()


def _drop_pooler(body: nn.Module) -> None:
    """Take out a pooler that this network does not use: its weights would get no gradient."""
    if isinstance(getattr(body, "pooler", None), nn.Module):
        setattr(body, "pooler", None)  # noqa: B010 - the type of a module is not that of its attributes


def _width(body: nn.Module) -> int:
    config: Any = body.config
    for name in ("hidden_size", "dim", "d_model", "n_embd"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    raise ModelError(f"how wide the vectors of {type(body).__name__} are is not known")


def _filled(transformers: Any, folder: Path, recipe: dict[str, Any], name: str) -> nn.Module:
    makers = {IMAGE: "AutoModelForImageClassification", TEXT: "AutoModelForSequenceClassification"}
    maker = getattr(transformers, makers.get(recipe["kind"], "AutoModel"))
    if not any(folder.glob("*.safetensors")):
        others = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.h5")))
        more = f"; {few(tuple(others))} may run code when it is read, so it is not" if others else ""
        raise WeightsError(f"{printable(name)!r} has no weights as safetensors{more}")
    labels = {k: recipe["config"][k] for k in ("num_labels",) if k in recipe["config"]}
    try:
        with _silent(transformers):
            found, about = maker.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False, local_files_only=True,
                output_loading_info=True, dtype=torch.float32, **labels,
            )  # fmt: skip
    except Exception as error:  # transformers and safetensors raise what they like
        raise WeightsError(f"the weights of {printable(name)!r} cannot be read: {_line(error)}") from None
    model = found if recipe["kind"] != ENCODER else _with_head(found, recipe)
    missing = _body_only(model, about["missing_keys"], recipe["kind"])
    if missing:
        raise WeightsError(f"the weights of {printable(name)!r} lack {few(tuple(missing))}")
    return model.eval()


def _body_only(model: nn.Module, missing: Any, kind: str) -> list[str]:
    """Names that a file lacks and that no new head makes good."""
    if kind == ENCODER:
        return sorted(n for n in missing if not n.startswith("pooler."))
    root = find_head(model).split(".")[0]
    fresh = ("pre_classifier.", f"{root}.", "pooler.")
    return sorted(n for n in missing if not n.startswith(fresh) and ".pooler." not in n)


# ---------------------------------------------------------------- where it is


def folder_of(name: str, revision: str | None, log: Log) -> tuple[Path, str]:
    """The folder of the files, and by which commit or content they are known.

    Args:
        name: of a network of the Hub, ``hf/OWNER/NAME``, or a folder; a folder of that very name goes first.
        revision: branch, tag or commit on the Hub; None for its main branch.
        log: told about downloads.

    Raises:
        ModelError: there is no such network.
        WeightsError: it cannot be downloaded.
    """
    here = is_folder(name) and revision is None
    if here and name.startswith(PREFIX):
        log(f"taken from the folder {printable(name)} here, not from the Hub")
    if here or not name.startswith(PREFIX):
        if revision is not None:
            raise ModelError("--revision is for a network of the Hub, and this is a folder")
        folder = Path(name).expanduser()
        return folder, f"of the folder, sha256 {_digest(folder)[:16]}"
    repository = name.removeprefix(PREFIX).strip("/")
    if repository.count("/") > 1 or not repository:
        raise ModelError(unnamed(name))
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError:
        raise ModelError(NEEDS) from None
    known = huggingface_hub.try_to_load_from_cache(repository, CONFIG, revision=revision)
    if not isinstance(known, str):
        log(f"downloading {repository} from the Hub")
    try:
        place = Path(
            huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=list(_FILES))
        )
    except RepositoryNotFoundError:
        raise ModelError(f"the Hub has no network {printable(repository)!r} that may be read") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise WeightsError(f"{printable(repository)!r} cannot be downloaded: {_line(error)}") from None
    return place, f"commit {place.name}"


def unnamed(name: str) -> str:
    """What is wrong with a name that no network of the Hub can have, in a line."""
    return f"a network of the Hub is named hf/OWNER/NAME, not {printable(name)!r}"


def _digest(folder: Path) -> str:
    sha = hashlib.sha256()
    for path in sorted((*folder.glob("*.safetensors"), folder / CONFIG)):
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                sha.update(block)
    return sha.hexdigest()


# ---------------------------------------------------------------- what it is


def _config(transformers: Any, folder: Path, name: str) -> Any:
    values = _json(folder / CONFIG)
    if not values:
        raise ModelError(f"{printable(name)!r} has no {CONFIG} that can be read")
    try:
        with _silent(transformers):
            return transformers.AutoConfig.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
    except Exception as error:  # transformers raises what it likes
        if "auto_map" in values:
            raise ModelError(
                f"{printable(name)!r} needs code of its own, which would run on this machine, so it is not loaded"
            ) from None
        raise ModelError(f"transformers does not know {printable(name)!r}: {_line(error)}") from None


def _kind(transformers: Any, folder: Path, config: Any) -> str:
    from transformers.models.auto import modeling_auto

    if config.model_type in modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        return IMAGE
    if (folder / "modules.json").is_file():
        return ENCODER
    if any("ForSequenceClassification" in name for name in config.architectures or ()):
        return TEXT
    if config.model_type in modeling_auto.MODEL_MAPPING_NAMES:
        return ENCODER
    raise ModelError(f"{config.model_type} is neither a text encoder nor a network for pictures")


def _pooled_as(folder: Path, kind: str) -> dict[str, Any]:
    """Pooling as ``modules.json`` says; the mean over the mask where there is none."""
    if kind != ENCODER:
        return {}
    how, normalise, notes = "mean", False, []
    modules: Any = _json(folder / "modules.json") or []
    for module in modules if isinstance(modules, list) else []:
        name, path = str(module.get("type", "")).rpartition(".")[2], str(module.get("path", ""))
        if name == "Pooling" and ".." not in path:
            how = _pooling(_json(folder / path / CONFIG) or {})
        elif name == "Normalize":
            normalise = True
        elif name not in ("Transformer", "Pooling"):
            notes.append(f"{name} of its modules.json is not used: the head stands on the pooled vectors")
    if not modules:
        notes.append("pooled by the mean over the tokens, as nothing else is said in a modules.json")
    return {"how": how, "normalise": normalise, "notes": notes}


def _pooling(config: Mapping[str, Any]) -> str:
    for key, how in (
        ("pooling_mode_cls_token", "cls"), ("pooling_mode_max_tokens", "max"),
        ("pooling_mode_lasttoken", "last"), ("pooling_mode_mean_sqrt_len_tokens", "root"),
    ):  # fmt: skip
        if config.get(key):
            return how
    return {"cls": "cls", "max": "max", "lasttoken": "last"}.get(str(config.get("pooling_mode")), "mean")


# ---------------------------------------------------------------- what it takes


def image_preprocess(folder: Path, config: Any) -> Preprocess:
    """The preprocessing of a network for pictures, as its image processor does it."""
    told = _json(folder / "preprocessor_config.json") or {}
    channels, side = int(getattr(config, "num_channels", 3)), getattr(config, "image_size", 224)
    side = side if isinstance(side, int) else 224
    size, crop = told.get("size", side), told.get("crop_size")
    size = {"height": size, "width": size} if isinstance(size, int) else dict(size or {})
    shortest = size.get("shortest_edge")
    if told.get("do_center_crop") and crop is not None:
        final = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        resize: int | None = int(shortest or min(size["height"], size["width"]))
    elif shortest is not None:
        # ConvNeXt: below 384 pixels the picture is resized to more and cropped, above it is not.
        final = (shortest, shortest)
        resize = (
            int(shortest / told.get("crop_pct", 224 / 256)) if shortest < 384 and "crop_pct" in told else None
        )
    else:
        final, resize = (size.get("height", side), size.get("width", side)), None
    normalised = told.get("do_normalize", True)
    mean, std = (told.get(f"image_{name}") if normalised else None for name in ("mean", "std"))
    flat = 0.5 if normalised and not told else 0.0
    return Preprocess.from_dict({
        "channels": channels, "size": [int(final[0]), int(final[1])],
        "resize": resize if resize is None else int(resize),
        "mean": list(mean or (flat,) * channels)[:channels],
        "std": list(std or ((flat or 1.0),) * channels)[:channels],
        "interpolation": _INTERPOLATIONS.get(told.get("resample", 2), "bilinear"),
    })  # fmt: skip


def text_preprocess(folder: Path, model: nn.Module, transformers: Any) -> TextPreprocess:
    """The tokenizer of a folder, for a network.

    Raises:
        ModelError: there is none, or the network takes no token numbers.
    """
    if (folder / "tokenizer.json").is_file():
        content = (folder / "tokenizer.json").read_text(encoding="utf-8")
    else:
        try:
            with _silent(transformers):
                found = transformers.AutoTokenizer.from_pretrained(
                    folder, trust_remote_code=False, local_files_only=True
                )
            content = found.backend_tokenizer.to_str()
        except Exception as error:  # transformers raises what it likes
            raise ModelError(
                f"{printable(str(folder))!r} has no tokenizer that can be read: {_line(error)}"
            ) from None
    told = (_json(folder / "tokenizer_config.json") or {}).get("model_max_length")
    return for_network(content, model, told if isinstance(told, int | float) else None)


def for_network(content: str, model: nn.Module, longest: float | None = None) -> TextPreprocess:
    """A tokenizer as a network needs it: which inputs, how many tokens, filled up with what.

    Args:
        content: of a ``tokenizer.json``.
        model: takes token numbers.
        longest: tokens of the longest text, as the tokenizer says.

    Raises:
        ModelError: the forward has no ``input_ids``.
    """
    config = getattr(model, "config", None) or getattr(getattr(model, "body", None), "config", None)
    takes = inspect.signature(model.forward).parameters
    names = tuple(name for name in INPUTS if name in takes)
    if TYPES in names and getattr(config, "type_vocab_size", 1 if config is not None else 2) < 2:
        names = tuple(name for name in names if name != TYPES)
    if IDS not in names:
        raise ModelError(f"the forward of {type(model).__name__} has no {IDS}; a text network takes that")
    limits = [places for places in (_places(model, config), longest) if places and places < _UNBOUNDED]
    most = int(min(limits, default=512))
    pad = getattr(config, "pad_token_id", None)
    return TextPreprocess(
        content, names, min(128, most), most, int(pad) if pad is not None else _pad_of(content),
        fixed=MASK not in names,
    )  # fmt: skip


def _places(model: nn.Module, config: Any) -> int | None:
    """How many tokens have a place in the network; None where it has no table of places."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa counts its places from behind the number of the padding.
            before = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - before
    most = getattr(config, "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else None


def _pad_of(content: str) -> int:
    padding = json.loads(content).get("padding")
    return int(padding.get("pad_id", 0)) if isinstance(padding, dict) else 0


def tokenizer_content(given: object) -> str:
    """The content of a ``tokenizer.json``.

    Args:
        given: that file, its folder, or a tokenizer of transformers or tokenizers.

    Raises:
        ModelError: it is none of these.
    """
    inner: Any = getattr(given, "backend_tokenizer", given)
    if callable(getattr(inner, "to_str", None)):
        return str(inner.to_str())
    if isinstance(given, str | Path):
        path = Path(given).expanduser()
        path = path / "tokenizer.json" if path.is_dir() else path
        if path.is_file() and isinstance(_json(path), dict):
            return path.read_text(encoding="utf-8")
        raise ModelError(f"no tokenizer.json at {printable(str(given))!r}")
    raise ModelError(
        f"a tokenizer is a tokenizer.json, its folder, or a fast tokenizer, not {type(given).__name__}"
    )


def tokenizer_of(model: nn.Module) -> str | None:
    """The tokenizer in the folder from which a module of transformers was loaded; None where there is none here."""
    path = getattr(getattr(model, "config", None), "_name_or_path", "")
    if not path or not isinstance(path, str):
        return None
    try:
        return tokenizer_content(path)
    except ModelError:
        return None


# ---------------------------------------------------------------- helpers


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ModelError(NEEDS) from None
    return transformers


@contextmanager
def _silent(transformers: Any) -> Any:
    """Without the package's own warnings and progress bars: what matters is said as a note."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _plain_config(config: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    for name in ("_name_or_path", "transformers_version", "auto_map", "dtype", "torch_dtype"):
        values.pop(name, None)
    return values


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _line(error: BaseException) -> str:
    return printable(first_line(error)[:160])
