"""Banking77 with all-MiniLM-L6-v2: accuracy on the whole test set, and seconds, beside others on the same weights.

python -m tests.benchmarks.text.banking results.jsonl --models FOLDER --data FOLDER [--seeds 3] [--amounts 10 30]

No recipe chooses anything by the test set: strengths come from folds of the training texts, plans have a fixed number
of epochs, and no guard and no blend looks at a score. Seconds are those of the processor, one thread, reading and the
measurement on 3,080 texts included. A run that stands in the file of results is not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tlnb import Session
from tlnb.display.progress import Listener
from tlnb.engine.core.tree import call

PLANS = {
    "fit head": "fit head",
    "fit head, all 10": "fit head\ntrain all epochs 10 lr 3e-4 guard off",
    "fit head, all 5": "fit head\ntrain all epochs 5 lr 3e-4 guard off",
    "fit head, all 10 from a soft head": "fit head\ntrain all epochs 10 lr 3e-4 init soft guard off",
    "fit head, compared": (
        "fit head\ntrain body epochs 5 lr 2e-4 batch 128 contrast 0.1 blend 0.5\nfit head"
    ),
    "head 5, last two 5, all 2": (
        "freeze body epochs 5 lr 1e-2 guard off\n"
        "train 5: epochs 5 lr 1e-4 guard off\n"
        "unfreeze all epochs 2 lr 2e-5 guard off"
    ),
}
"""Plans of tlnb by name; the last one is timed against the plain loop, which trains the same."""
STAGES = ((7, 5, 1e-2), (5, 5, 1e-4), (0, 2, 2e-5))  # the same: the first layer that trains, epochs, rate
BATCH = 32


def session(models: Path, data: Path, amount: int, seed: int) -> Session:
    """MiniLM and so many questions a class to learn from; it is measured on the test set."""
    tl = Session([])
    tl.load(str(models / "minilm"))
    tl.data(str(data / "banking77"), text="text", label="category", per_class=amount, seed=seed, batch=BATCH)
    return tl


def by_plan(plan: str) -> Callable[[Session, list[float]], float]:
    """A plan of tlnb."""

    def run(tl: Session, seconds: list[float]) -> float:
        counted = Seconds()
        tl.listeners.append(counted)
        accuracy = float(tl.run(plan).accuracy or 0.0)
        seconds.extend(counted.each)
        return accuracy

    return run


def logistic(tl: Session, seconds: list[float]) -> float:
    """scikit-learn's logistic regression on what enters the head, its strength chosen by five folds."""
    from sklearn.linear_model import LogisticRegressionCV

    model = tl.model.eval()
    parts = [_vectors(model, samples) for samples in tl.view.need_samples()]
    (x, y), (held, targets) = [(features.numpy(), goal.numpy()) for features, goal in parts]
    found = LogisticRegressionCV(Cs=np.logspace(-2, 4, 7), cv=5, max_iter=2000, scoring="accuracy").fit(x, y)
    return float((found.predict(held) == targets).mean())


class Seconds(Listener):
    """Processor seconds of each stage, its pass over the frozen part and its measurements included."""

    def __init__(self) -> None:
        self.each: list[float] = []

    def on_stage_start(self, *of: object) -> None:
        self.began = time.process_time()

    def on_stage_end(self, result: object) -> None:
        self.each.append(time.process_time() - self.began)


def stages(tl: Session) -> Iterator[tuple[int, float, list[nn.Parameter]]]:
    """Epochs, rate and weights of each stage of the plan, the others being kept from training."""
    named, layers = dict(tl.model.named_parameters()), tl.view.layers
    assert layers is not None
    groups = [[named[name] for name in layer.parameter_names] for layer in layers]
    for first, epochs, rate in STAGES:
        for number, group in enumerate(groups):
            for weight in group:
                weight.requires_grad_(number >= first)
        yield epochs, rate, [weight for group in groups[first:] for weight in group]


def plain_loop(tl: Session, seconds: list[float]) -> float:
    """The plan of three stages as a loop of PyTorch: what is frozen runs in each step, and takes no gradients."""
    model = tl.model
    train, valid = tl.view.need_samples()
    for epochs, rate, weights in stages(tl):
        began = time.process_time()
        optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01)
        order = torch.Generator().manual_seed(0)
        steps = epochs * -(-len(train) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
        for _ in range(epochs):
            model.train()
            for rows in torch.randperm(len(train), generator=order).split(BATCH):
                loss = nn.functional.cross_entropy(call(model, train.batch(rows)), train.targets[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            accuracy = _measured(model, valid)
        seconds.append(time.process_time() - began)
    return accuracy


class Scored(nn.Module):
    """A network that answers its loss as well, as the Trainer of transformers wants it."""

    accepts_loss_kwargs = False  # of the Trainer's own, beside the parts of the batch

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, labels: Tensor, **parts: Tensor) -> dict[str, Tensor]:
        scores = self.model(**parts)
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


def trainer(tl: Session, seconds: list[float]) -> float:
    """The same three stages by the Trainer of transformers, which measures after each epoch as the others do."""
    from transformers import Trainer, TrainingArguments

    accuracy = 0.0
    train, valid = tl.view.need_samples()
    for epochs, rate, _ in stages(tl):
        began = time.process_time()
        with tempfile.TemporaryDirectory() as place:
            asked = TrainingArguments(
                place, num_train_epochs=epochs, learning_rate=rate, weight_decay=0.01, use_cpu=True,
                per_device_train_batch_size=BATCH, per_device_eval_batch_size=64, eval_strategy="epoch",
                save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no", label_names=["labels"],
                remove_unused_columns=False,
            )  # fmt: skip
            parts = [[(samples, row) for row in range(len(samples))] for samples in (train, valid)]
            found = Trainer(
                Scored(tl.model), asked, _collated, parts[0], parts[1],
                compute_metrics=lambda seen: {"accuracy": float((seen[0].argmax(1) == seen[1]).mean())},
            )  # fmt: skip
            found.train()
            accuracy = [line["eval_accuracy"] for line in found.state.log_history if "eval_accuracy" in line][
                -1
            ]
        seconds.append(time.process_time() - began)
    return accuracy


def _collated(drawn: list[tuple[Any, int]]) -> dict[str, Tensor]:
    samples, rows = drawn[0][0], torch.tensor([row for _, row in drawn])
    return {"labels": samples.targets[rows], **samples.batch(rows)}


def _measured(model: nn.Module, samples: object) -> float:
    model.eval()
    right = 0
    with torch.no_grad():
        for rows in torch.arange(len(samples)).split(64):  # type: ignore[arg-type]
            scores = call(model, samples.batch(rows))  # type: ignore[attr-defined]
            right += int((scores.argmax(1) == samples.targets[rows]).sum())  # type: ignore[attr-defined]
    return right / len(samples)  # type: ignore[arg-type]


def _vectors(model: nn.Module, samples: object) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []
    handle = model.get_submodule("head").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    _measured(model, samples)
    handle.remove()
    return torch.cat(seen), samples.targets  # type: ignore[attr-defined]


def setfit(tl: Session, seconds: list[float]) -> float:
    """SetFit at its published settings (Tunstall et al. 2022): 20 pairs a text, one epoch, then logistic regression.

    The pairs go by the library's own choice; its encoder is read from the same folder. Needs ``setfit``.
    """
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    train, valid = tl.view.need_samples()
    model = SetFitModel.from_pretrained(tl.view.need_model().name)  # a folder
    texts = {"text": list(train.texts), "label": train.targets.tolist()}  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as place:
        asked = TrainingArguments(
            output_dir=place, batch_size=16, num_epochs=1, num_iterations=20, report_to="none", use_amp=False,
            logging_strategy="no", save_strategy="no", show_progress_bar=False,
        )  # fmt: skip
        began = time.process_time()
        Trainer(model, asked, train_dataset=Dataset.from_dict(texts)).train()
        seconds.append(time.process_time() - began)
    found = torch.as_tensor(model.predict(list(valid.texts), batch_size=64))  # type: ignore[attr-defined]
    return float((found == valid.targets).float().mean())


RECIPES: dict[str, Callable[[Session, list[float]], float]] = {
    **{name: by_plan(plan) for name, plan in PLANS.items()},
    "logistic regression": logistic,
    "plain loop of the same": plain_loop,
    "Trainer, the same": trainer,
    "SetFit": setfit,
}


def main() -> None:
    """Run what is not done yet, and print the means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--amounts", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = given.results.read_text().splitlines() if given.results.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(row["recipe"], row["amount"], row["seed"]) for row in rows}
    for amount in given.amounts:
        for seed in range(given.seeds):
            for recipe in given.recipes:
                if (recipe, amount, seed) in done:
                    continue
                torch.manual_seed(seed)
                began = time.process_time()
                each: list[float] = []
                accuracy = RECIPES[recipe](session(given.models, given.data, amount, seed), each)
                row = {
                    "recipe": recipe, "amount": amount, "seed": seed, "accuracy": accuracy,
                    "seconds": time.process_time() - began, "stages": each,
                }  # fmt: skip
                rows.append(row)
                with given.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)
    for amount in given.amounts:
        for recipe in given.recipes:
            found = [row for row in rows if (row["recipe"], row["amount"]) == (recipe, amount)]
            if found:
                scores = [100 * row["accuracy"] for row in found]
                seconds = np.mean([row["seconds"] for row in found])
                print(
                    f"{amount} a class, {recipe}: {np.mean(scores):.1f} % ({min(scores):.1f} to {max(scores):.1f}, "
                    f"{len(found)} seeds), {seconds:.0f} s"
                )


if __name__ == "__main__":
    main()
