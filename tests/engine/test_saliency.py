"""Heat maps point at what makes the score, leave no trace, and work for networks of each kind."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from tlnb.engine.results.saliency import heat_maps


class TopLeft(nn.Module):
    """The score of class 1 is the brightness of the upper left quarter."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.convolution.weight)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(64, 2, bias=False)
        with torch.no_grad():
            weights = torch.zeros(2, 8, 8)
            weights[1, :4, :4] = 1
            self.head.weight.copy_(weights.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.convolution(x)).flatten(1))


def test_the_map_is_where_the_score_comes_from() -> None:
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.1
    maps, method = heat_maps(TopLeft(), x, torch.ones(3, dtype=torch.long))
    assert method == "Grad-CAM by place"
    assert maps.shape == (3, 8, 8)
    assert maps[:, :4, :4].min() > 0
    assert maps[:, 4:].max() == 0
    assert maps.amax((1, 2)) == pytest.approx([1, 1, 1])


def test_nothing_of_the_network_changes() -> None:
    network = torchvision.models.resnet18(weights=None, num_classes=4).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    maps, _ = heat_maps(network, torch.randn(2, 3, 48, 48), torch.tensor([0, 3]))
    assert maps.shape == (2, 48, 48)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("name", "side", "method"),
    [("densenet121", 64, "Grad-CAM by place"), ("vit_b_16", 32, "gradient × input")],
)
def test_networks_of_each_kind(name: str, side: int, method: str) -> None:
    options = {"image_size": side} if name.startswith("vit") else {}
    network = torchvision.models.get_model(name, weights=None, num_classes=3, **options).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    maps, how = heat_maps(network, torch.randn(1, 3, side, side), torch.tensor([1]))
    assert how == method
    assert maps.shape == (1, side, side)
    assert 0 <= maps.min() <= maps.max() <= 1


def test_a_layer_that_runs_for_another_answer_too_is_seen_where_it_makes_the_score() -> None:
    class Twice(TopLeft):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), super().forward(x.flip(-1))

    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.1
    classes = torch.ones(3, dtype=torch.long)
    assert torch.equal(heat_maps(Twice(), x, classes)[0], heat_maps(TopLeft(), x, classes)[0])
