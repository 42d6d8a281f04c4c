"""Names of the data sets that torchvision knows how to download; importing this loads no torch."""

from __future__ import annotations

# Those with one class a picture, a published download, and arguments that say which part is meant.
NAMES = (
    "CIFAR10", "CIFAR100", "Caltech101", "Country211", "DTD", "EMNIST", "EuroSAT", "FGVCAircraft",
    "FashionMNIST", "Flowers102", "Food101", "GTSRB", "KMNIST", "MNIST", "OxfordIIITPet", "QMNIST",
    "RenderedSST2", "STL10", "SVHN", "SUN397", "USPS",
)  # fmt: skip
