"""What is compared: each recipe trains a network on a cell and says what it makes of the test photos."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision import transforms

from tests.benchmarks.accuracy.cells import SIDE, Cell, Files, weights_of

BATCH = 16


@dataclass(frozen=True)
class Job:
    """A cell with its files.

    Attributes:
        cell: which.
        files: its photos.
        root: where sets and weights are.
        epochs: that every recipe but the logistic regression trains all layers for.
    """

    cell: Cell
    files: Files
    root: Path
    epochs: int


@dataclass(frozen=True)
class Outcome:
    """What a recipe came to.

    Attributes:
        guesses: the class number of each test photo.
        note: how it went, in a word.
        valid: accuracy on the validation photos, where the recipe measured it.
    """

    guesses: list[int]
    note: str = ""
    valid: float | None = None


def epochs_for(images: int) -> int:
    """Epochs of all layers for so many training photos, the same for every recipe."""
    from tlnb.engine.training.plan import usual_epochs

    return usual_epochs(images)


# ---------------------------------------------------------------- plain PyTorch


_PICTURE = transforms.Compose([
    transforms.Resize(round(SIDE * 256 / 224)), transforms.CenterCrop(SIDE), transforms.ToTensor(),
    transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
])  # fmt: skip


def _pictures(paths: list[Path]) -> Tensor:
    from PIL import Image

    return torch.stack([_PICTURE(Image.open(path).convert("RGB")) for path in paths])


def _part(job: Job, part: str) -> tuple[Tensor, Tensor]:
    paths = [
        (p, k)
        for k, name in enumerate(job.files.classes)
        for p in sorted((job.files.folder / part / name).iterdir())
    ]
    return _pictures([p for p, _ in paths]), torch.tensor([k for _, k in paths])


def network(job: Job) -> nn.Module:
    """The network with a new head for the classes; without the ReLU that SqueezeNet has behind its scores."""
    net = torchvision.models.get_model(job.cell.network)
    net.load_state_dict(torch.load(weights_of(job.cell.network, job.root), weights_only=True))
    torch.manual_seed(job.cell.seed)
    count = len(job.files.classes)
    if job.cell.network.startswith("squeezenet"):
        net.classifier = nn.Sequential(
            net.classifier[0], nn.Conv2d(512, count, 1), nn.Identity(), net.classifier[3]
        )
    else:
        net.classifier[1] = nn.Linear(net.last_channel, count)
    return net


def _features(net: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([net.features(part).mean((2, 3)) for part in x.split(64)]).clone()


def _guess(net: nn.Module, x: Tensor) -> list[int]:
    net.eval()
    with torch.inference_mode():
        return torch.cat([net(part).argmax(1) for part in x.split(64)]).tolist()


def logistic(job: Job) -> Outcome:
    """Logistic regression on the frozen network's features, its strength by five folds, as scikit-learn does it."""
    pipeline = _fitted(job, network(job).eval())
    test = _features(network(job).eval(), _pictures(job.files.test[0]))
    return Outcome(pipeline.predict(test.numpy()).tolist(), f"C {float(pipeline[-1].C_[0]):.2g}")


def _fitted(job: Job, net: nn.Module) -> Any:
    import numpy as np
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = _part(job, "train")
    folds = min(5, int(torch.bincount(y).min()))
    logistic = LogisticRegressionCV(Cs=np.logspace(-4, 1, 8), cv=folds, max_iter=2000)
    return make_pipeline(StandardScaler(), logistic).fit(_features(net, x).numpy(), y.numpy())


def _loop(job: Job, net: nn.Module, rate: float, epochs: int, decay: float) -> None:
    """AdamW, one-cycle, each block of the body ``decay`` times slower than the one behind it."""
    blocks = [list(b.parameters()) for b in net.features if list(b.parameters())] + [
        list(net.classifier.parameters())
    ]
    groups = [{"params": p, "lr": rate * decay ** (i - len(blocks) + 1)} for i, p in enumerate(blocks)]
    x, y = _part(job, "train")
    steps = epochs * math.ceil(len(x) / BATCH)
    optimizer = torch.optim.AdamW(groups, lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [g["lr"] for g in groups], total_steps=steps)
    for _ in range(epochs):
        net.train()
        for rows in torch.randperm(len(x)).split(BATCH):
            if len(rows) > 1:
                functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
                optimizer.zero_grad()
            schedule.step()


def plain(job: Job) -> Outcome:
    """A plain loop: AdamW at 1e-3 with layer decay, all layers at once, norms trained."""
    net = network(job)
    _loop(job, net, 1e-3, job.epochs, 1.1)
    return Outcome(_guess(net, _pictures(job.files.test[0])))


def lpft(job: Job) -> Outcome:
    """Linear probe, then fine-tuning (Kumar et al. 2022), by hand: scikit-learn's head, then AdamW at 1e-4."""
    net = network(job)
    pipeline = _fitted(job, net.eval())
    scale, fit = pipeline[0], pipeline[-1]
    weight, bias = torch.from_numpy(fit.coef_ / scale.scale_), torch.from_numpy(fit.intercept_)
    bias = bias - weight @ torch.from_numpy(scale.mean_)
    if len(weight) == 1:
        weight, bias = torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
    head = net.classifier[1]
    with torch.no_grad():
        head.weight.copy_(weight.reshape(head.weight.shape))
        head.bias.copy_(bias)
    _loop(job, net, 1e-4, job.epochs, 1.0)
    return Outcome(_guess(net, _pictures(job.files.test[0])))


# ---------------------------------------------------------------- fastai


def _learner(job: Job) -> Any:
    from fastai.vision.all import (
        CropPad,
        ImageDataLoaders,
        Normalize,
        Resize,
        ResizeMethod,
        accuracy,
        imagenet_stats,
        set_seed,
        vision_learner,
    )

    def body(pretrained: bool = False) -> nn.Module:
        whole = torchvision.models.get_model(job.cell.network)
        whole.load_state_dict(torch.load(weights_of(job.cell.network, job.root), weights_only=True))
        return nn.Sequential(whole.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))

    set_seed(job.cell.seed, reproducible=True)
    side = round(SIDE * 256 / 224)
    loaders = ImageDataLoaders.from_folder(
        job.files.folder, train="train", valid="val", bs=BATCH, num_workers=0, seed=job.cell.seed,
        item_tfms=[Resize(side, method=ResizeMethod.Crop), CropPad(SIDE)],
        batch_tfms=[Normalize.from_stats(*imagenet_stats)],
    )  # fmt: skip
    if job.files.train < BATCH:
        loaders.train.bs = job.files.train
    learn = vision_learner(loaders, body, pretrained=False, normalize=False, metrics=accuracy)
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.freeze()
    return learn


def _fine_tuned(job: Job, *, find: bool) -> Outcome:
    learn = _learner(job)
    with learn.no_bar(), learn.no_logging():
        rate = float(learn.lr_find(show_plot=False).valley) if find else 2e-3
        learn.fine_tune(job.epochs, rate)
        scores = learn.get_preds(dl=learn.dls.test_dl(job.files.test[0], num_workers=0))[0]
    return Outcome(scores.argmax(1).tolist(), f"rate {rate:.1e}")


def fastai(job: Job) -> Outcome:
    """``fine_tune`` at its default rate."""
    return _fine_tuned(job, find=False)


def fastai_found(job: Job) -> Outcome:
    """``fine_tune`` at the rate of ``lr_find``'s rule ``valley``."""
    return _fine_tuned(job, find=True)


# ---------------------------------------------------------------- tlnb


def _session(job: Job, seed: int | None = None) -> Any:
    from tlnb.session import Session

    tl = Session([])
    tl.load(job.cell.network, weights=weights_of(job.cell.network, job.root))
    tl.data(os.fspath(job.files.folder), size=SIDE, seed=job.cell.seed if seed is None else seed)
    return tl


def _judged(job: Job, tl: Any, run: Any) -> Outcome:
    note = "; ".join(f"{s.stage.text}: {s.share:g} kept" for s in run.stages)
    return Outcome(_guessed(job, tl), note, run.accuracy)


def _guessed(job: Job, tl: Any) -> list[int]:
    answers = tl.predict("\n".join(map(str, job.files.test[0]))).answers
    return answers.argmax(1).tolist()


def default(job: Job) -> Outcome:
    """``%tl_train`` with nothing said."""
    tl = _session(job)
    return _judged(job, tl, tl.train())


def advised(job: Job) -> Outcome:
    """``%tl_train --advised``."""
    tl = _session(job)
    return _judged(job, tl, tl.train_advised())


def fitted(job: Job) -> Outcome:
    """``fit head`` alone."""
    tl = _session(job)
    return _judged(job, tl, tl.run("fit head"))


def planned(text: str) -> Callable[[Job], Outcome]:
    """A plan of one's own; ``E`` stands for the epochs that all recipes have."""

    def recipe(job: Job) -> Outcome:
        tl = _session(job)
        return _judged(job, tl, tl.run(text.replace("epochs E", f"epochs {job.epochs}")))

    return recipe


def stepped(step: Callable[..., Callable[..., Tensor]]) -> Callable[[Job], Outcome]:
    """The default plan, whose last stage trains by a step of one's own."""

    def recipe(job: Job) -> Outcome:
        tl = _session(job)
        tl.run("fit head")
        tl.step = step(torch.Generator().manual_seed(job.cell.seed))
        return _judged(job, tl, tl.run(_last(job)))

    return recipe


def mixup(draw: torch.Generator) -> Callable[..., Tensor]:
    """Two photos are laid over each other (Zhang et al. 2018), with shares from Beta(0.2, 0.2)."""

    def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        share, order = _share(draw, 0.2), torch.randperm(len(x), generator=draw)
        return _mixed_loss(model(share * x + (1 - share) * x[order]), y, y[order], share)

    return step


def cutmix(draw: torch.Generator) -> Callable[..., Tensor]:
    """A box of one photo comes into another (Yun et al. 2019), its side from Beta(1, 1)."""

    def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        order, (height, width) = torch.randperm(len(x), generator=draw), x.shape[-2:]
        side = (1 - _share(draw, 1.0)) ** 0.5
        down, right = (int(torch.randint(n, (1,), generator=draw)) for n in (height, width))
        rows = slice(max(0, down - int(height * side / 2)), down + int(height * side / 2))
        columns = slice(max(0, right - int(width * side / 2)), right + int(width * side / 2))
        mixed = x.clone()
        mixed[..., rows, columns] = x[order][..., rows, columns]
        share = 1 - mixed[0, 0, rows, columns].numel() / (height * width)
        return _mixed_loss(model(mixed), y, y[order], share)

    return step


def _mixed_loss(scores: Tensor, y: Tensor, other: Tensor, share: float) -> Tensor:
    """The loss on both labels of mixed photos, by their shares."""
    return share * functional.cross_entropy(scores, y) + (1 - share) * functional.cross_entropy(scores, other)


def _share(draw: torch.Generator, strength: float) -> float:
    """From Beta(strength, strength), seeded by the generator."""
    import numpy as np

    seed = int(torch.randint(2**31, (1,), generator=draw))
    return float(np.random.default_rng(seed).beta(strength, strength))


def features_mixed(job: Job) -> Outcome:
    """A linear head on frozen features whose brightness varies by channel (FroFA, Bär et al. 2024)."""
    tl = _session(job)
    draw = torch.Generator().manual_seed(job.cell.seed)
    head = tl.model.get_submodule(tl.view.need_model().head)

    def vary(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if not module.training:
            return inputs
        x = inputs[0]
        size = (*x.shape[:2], *[1] * (x.dim() - 2))
        shift = torch.rand(size, generator=draw).mul(2).sub(1).mul(0.5)
        return (x + shift * (x.amax(0, keepdim=True) - x.amin(0, keepdim=True)),)

    handle = head.register_forward_pre_hook(vary)
    run = tl.run("freeze body epochs 60 lr 1e-2 guard off")
    handle.remove()
    return _judged(job, tl, run)


def soup(job: Job) -> Outcome:
    """A greedy soup (Wortsman et al. 2022): three orders of batches, averaged while validation does not fall."""
    runs = []
    for seed in range(3):
        tl = _session(job, job.cell.seed + 100 * seed)
        tl.run("fit head")
        run = tl.run(_last(job))
        runs.append((run.accuracy or 0.0, tl, {k: v.clone() for k, v in tl.model.state_dict().items()}))
    runs.sort(key=lambda each: -each[0])
    best, tl, kept = runs[0][0], runs[0][1], [runs[0][2]]
    for _, _, weights in runs[1:]:
        tl.model.load_state_dict(_mean([*kept, weights]))
        now = float(tl.results().accuracy)
        if now >= best:
            best, kept = now, [*kept, weights]
    tl.model.load_state_dict(_mean(kept))
    return Outcome(_guessed(job, tl), f"{len(kept)} of 3", best)


def _mean(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {
        name: torch.stack([s[name].double() for s in states]).mean(0).to(states[0][name].dtype)
        for name in states[0]
    }


LAST = "train all epochs E lr 3e-4 init soft blend auto"


def _last(job: Job) -> str:
    """The last stage of the default plan."""
    return LAST.replace("epochs E", f"epochs {job.epochs}")


MORE: dict[str, Callable[[Job], Outcome]] = {
    "LoRA, rank 8": planned("fit head\nadapt all rank 8 epochs E lr 1e-3 init soft blend auto"),
    "biases": planned("fit head\nadapt all bias epochs E lr 1e-3 init soft blend auto"),
    "norms": planned("fit head\nadapt all norm epochs E lr 1e-3 init soft blend auto"),
    "average ema": planned(f"fit head\n{LAST} average ema"),
    "average last:3": planned(f"fit head\n{LAST} average last:3"),
    "mixup": stepped(mixup),
    "cutmix": stepped(cutmix),
    "features varied": features_mixed,
    "greedy soup of three": soup,
}
"""What changes one thing about the default plan."""

RECIPES: dict[str, Callable[[Job], Outcome]] = {
    "logistic regression": logistic,
    "fastai fine_tune": fastai,
    "fastai fine_tune, lr_find": fastai_found,
    "plain loop": plain,
    "LP-FT by hand": lpft,
    "tlnb, fit head": fitted,
    "tlnb, default": default,
    "tlnb, advised": advised,
    "tlnb, augmented": planned("fit head\ntrain all epochs E lr 3e-4 blend auto augment standard"),
    "tlnb, norms train": planned("fit head\ntrain all epochs E lr 3e-4 bn train blend auto"),
    "tlnb, 1e-3": planned("fit head\ntrain all epochs E lr 1e-3 blend auto"),
    **MORE,
}
