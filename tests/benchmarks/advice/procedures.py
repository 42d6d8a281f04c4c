"""The procedures that are trained on every task, in the plan language, all for about the same epochs."""

from __future__ import annotations


def lengths(images: int) -> tuple[int, int, int]:
    """Batch, epochs of a head alone, and epochs of anything more, that every procedure has for so many images."""
    if images <= 100:
        return 16, 20, 16
    if images <= 400:
        return 32, 15, 10
    return 64, 10, 5


def procedures(images: int) -> dict[str, str]:
    """Name of each procedure, and its plan for ``convnet5``; "scratch" starts from new weights."""
    batch, head, rest = lengths(images)
    b = f"batch {batch}"
    first = f"freeze body epochs {head} lr 1e-2 {b}"
    third = max(rest // 3, 1)
    return {
        "head": first,
        "from 6": f"{first}\nunfreeze 6: epochs {rest} lr 1e-3 {b}",
        "from 5": f"{first}\nunfreeze 5: epochs {rest} lr 1e-3 {b}",
        "from 3": f"{first}\nunfreeze 3: epochs {rest} lr 1e-3 {b}",
        "from 2": f"{first}\nunfreeze 2: epochs {rest} lr 1e-3 {b}",
        "all": f"{first}\nunfreeze all epochs {rest} lr 1e-3 {b}",
        "all, decay": f"{first}\nunfreeze all epochs {rest} lr 2e-3 decay 1.6 {b}",
        "fine-tune all": f"unfreeze all epochs {rest} lr 1e-3 {b}",
        "gradual": (
            f"{first}\nunfreeze 5: epochs {third} lr 1e-3 {b}\nunfreeze 3: epochs {third} lr 1e-3 {b}\n"
            f"unfreeze all epochs {rest - 2 * third} lr 1e-3 decay 2.6 {b}"
        ),
        "fastai": (
            f"freeze body epochs 1 lr 2e-3 {b}\n"
            f"unfreeze all epochs {rest} lr 1e-3 decay 1.93 {b}"  # a hundredth at the first of eight layers
        ),
        "scratch": f"unfreeze all epochs {rest} lr 1e-3 {b}",
    }


def variants(images: int) -> dict[str, str]:
    """Recipes that the advised plan was chosen among, on the tuning tasks: as many epochs as the others."""
    batch, head, rest = lengths(images)
    b, half = f"batch {batch}", f"batch {max(batch // 2, 8)}"
    first = f"freeze body epochs {head} lr 1e-2 {b}"
    return {
        "all 2e-3": f"{first}\nunfreeze all epochs {rest} lr 2e-3 {b}",
        "all 4e-3": f"{first}\nunfreeze all epochs {rest} lr 4e-3 {b}",
        "all half batch": f"{first}\nunfreeze all epochs {rest} lr 1e-3 {half}",
        "all half 2e-3": f"{first}\nunfreeze all epochs {rest} lr 2e-3 {half}",
        "at once half": f"unfreeze all epochs {rest} lr 1e-3 {half}",
        "from 3 half 2e-3": f"{first}\nunfreeze 3: epochs {rest} lr 2e-3 {half}",
        "from 1 half 2e-3": f"{first}\nunfreeze 1: epochs {rest} lr 2e-3 {half}",
        "3 then all": (
            f"{first}\nunfreeze 3: epochs {rest // 2} lr 2e-3 {half}\n"
            f"unfreeze all epochs {rest - rest // 2} lr 1e-3 {half}"
        ),
        "all half decay": f"{first}\nunfreeze all epochs {rest} lr 2e-3 decay 1.3 {half}",
        "from 3 2e-3": f"{first}\nunfreeze 3: epochs {rest} lr 2e-3 {b}",
        "from 5 3e-3": f"{first}\nunfreeze 5: epochs {rest} lr 3e-3 {b}",
    }
