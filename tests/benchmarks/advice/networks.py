"""The advice on other networks than the one it was tuned on: real photos, weights that were trained on ImageNet.

    TLNB_PHOTOS=... TLNB_WEIGHTS=... python tests/benchmarks/advice/networks.py results.jsonl

``TLNB_WEIGHTS`` names a folder with ``mobilenet_v2.pth`` and ``squeezenet1_1.pth``. A line of JSON for each plan,
as ``collect.py`` writes them; ``report.py`` reads them too.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch
from collect import ADVISED, FIGURES, Known, usual
from procedures import lengths
from torch import Tensor

from tlnb.engine.advice.advice import decide, write_plan
from tlnb.engine.advice.figures import measure
from tlnb.engine.advice.trial import TrialGround, try_plan
from tlnb.engine.core.objectives import Classification
from tlnb.engine.data.samples import ImageSamples
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.features.planner import FeaturePlanner
from tlnb.engine.models.catalogue import load_model
from tlnb.engine.models.loaded import LoadedModel
from tlnb.engine.network.layers import LayerMap, find_layers
from tlnb.engine.training.plan import Traits

SIDE = 96
NETWORKS = ("mobilenet_v2", "squeezenet1_1")
PHOTOS = ("hymenoptera", "flowers")


def plans(images: int, body: int) -> dict[str, str]:
    """Those of ``procedures`` that every network can run."""
    batch, head, rest = lengths(images)
    b, third = f"batch {batch}", max(rest // 3, 1)
    first = f"freeze body epochs {head} lr 1e-2 {b}"
    late, middle = round(5 * body / 7), round(3 * body / 7)
    return {
        "head": first,
        "from 5/7": f"{first}\nunfreeze {late}: epochs {rest} lr 1e-3 {b}",
        "from 3/7": f"{first}\nunfreeze {middle}: epochs {rest} lr 1e-3 {b}",
        "all": f"{first}\nunfreeze all epochs {rest} lr 1e-3 {b}",
        "all, decay": f"{first}\nunfreeze all epochs {rest} lr 2e-3 decay 1.6 {b}",
        "fine-tune all": f"unfreeze all epochs {rest} lr 1e-3 {b}",
        "gradual": (
            f"{first}\nunfreeze {late}: epochs {third} lr 1e-3 {b}\nunfreeze {middle}: epochs {third} lr 1e-3 {b}\n"
            f"unfreeze all epochs {rest - 2 * third} lr 1e-3 decay {2.6 ** (7 / body):.3g} {b}"
        ),
        "fastai": (
            f"freeze body epochs 1 lr 2e-3 {b}\n"
            f"unfreeze all epochs {rest} lr 1e-3 decay {100 ** (1 / body):.4g} {b}"
        ),
    }


@lru_cache(maxsize=1)
def pictures(folder: Path) -> tuple[Tensor, Tensor]:
    """Every picture below ``train`` and ``val``, in colour, its middle square at SIDE pixels."""
    from PIL import Image, ImageOps
    from torchvision.transforms.v2.functional import pil_to_tensor

    images, targets = [], []
    for part in ("train", "val"):
        for number, kind in enumerate(sorted(p for p in (folder / part).iterdir() if p.is_dir())):
            for file in sorted(kind.iterdir()):
                with Image.open(file) as picture:
                    square = ImageOps.fit(picture.convert("RGB"), (SIDE, SIDE), Image.Resampling.BILINEAR)
                images.append(pil_to_tensor(square))
                targets.append(number)
    return torch.stack(images), torch.tensor(targets)


class Place:
    """One network on a few photos of one set."""

    def __init__(self, network: str, photos: str, per_class: int, seed: int):
        self.loaded: LoadedModel = load_model(
            network, weights=str(Path(os.environ["TLNB_WEIGHTS"]) / f"{network}.pth")
        )
        images, targets = pictures(Path(os.environ["TLNB_PHOTOS"]) / photos)
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
        classes = int(targets.max()) + 1
        learn = torch.cat([order[targets[order] == c][:per_class] for c in range(classes)])
        rest = order[~torch.isin(order, learn)]
        self.train, self.test = ((images[rows], targets[rows]) for rows in (learn, rest))
        samples = [
            ImageSamples(x, y, self.loaded.preprocess)
            for x, y in (self.train, (self.test[0][:8], self.test[1][:8]))
        ]
        batch, _, _ = lengths(len(learn))
        self.loaded.model.to(memory_format=torch.channels_last)
        self.ground = TrialGround(
            self.loaded.model, self.loaded.head, (samples[0], samples[1]), classes, Classification(), batch
        )
        self.layers: LayerMap = find_layers(
            self.loaded.model, samples[0].batch(torch.arange(1)), head=self.loaded.head
        )

    def seen(self) -> dict:
        """What the advisor measures, and the plan that it writes."""
        ground = self.ground
        figures = measure(
            ground.model, self.layers, ground.samples[0], FeaturePlanner(FeatureCache(None)), ground.device
        )
        counts = torch.bincount(self.test[1]).double()
        traits = Traits.of(ground.model, self.layers, trained=True)
        plan = write_plan(decide(figures, self.layers, traits), self.layers, figures.images, traits)
        return {
            "figures": asdict(figures),
            "plan": plan,
            "chance": round(float(counts.max() / counts.sum()), 4),
        }

    def reach(self, plan: str, seed: int) -> float:
        """The share of the test photos that a copy tells after this plan."""
        model = try_plan(self.ground, plan, seed=seed).model.eval()
        samples = ImageSamples(*self.test, self.loaded.preprocess)
        with torch.inference_mode():
            hits = [self._hits(model, samples, rows) for rows in torch.arange(len(samples)).split(32)]
        return round(torch.cat(hits).float().mean().item(), 5)

    @staticmethod
    def _hits(model: torch.nn.Module, samples: ImageSamples, rows: Tensor) -> Tensor:
        x = samples.batch(rows).contiguous(memory_format=torch.channels_last)
        return model(x).argmax(1) == samples.targets[rows]


def rows(network: str, photos: str, amount: int, seed: int, known: Known) -> Iterator[dict]:
    """What is not known yet of one network on one set of photos."""
    name = f"{network} on {photos}"
    place = Place(network, photos, amount, seed)
    texts = plans(len(place.train[1]), len(place.layers.body))
    for procedure in (FIGURES, *texts, ADVISED):
        key, began = f"{name}/{amount}/{seed}/{procedure}", time.perf_counter()
        if key in known.rows:
            continue
        if procedure == FIGURES:
            found = place.seen()
        else:
            plan = texts.get(procedure) or known.rows[f"{name}/{amount}/{seed}/{FIGURES}"]["plan"]
            same = next((other for other in texts if usual(plan) == texts[other]), "")
            twin = known.rows.get(f"{name}/{amount}/{seed}/{same}")
            found = {"accuracy": twin["accuracy"] if twin else place.reach(plan, seed)}
        row = {
            "key": key, "domain": name, "amount": amount, "seed": seed, "procedure": procedure, **found,
            "images": len(place.train[1]), "test": len(place.test[1]),
            "seconds": round(time.perf_counter() - began, 2),
        }  # fmt: skip
        known.rows[key] = row
        yield row


def main() -> None:
    """Compute what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--amounts", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    known = Known(asked.results)
    for seed in asked.seeds:
        for amount in asked.amounts:
            for network in asked.networks:
                for photos in PHOTOS:
                    with asked.results.open("a") as out:
                        for row in rows(network, photos, amount, seed, known):
                            out.write(json.dumps(row) + "\n")
                            out.flush()


if __name__ == "__main__":
    main()
