"""Pictures and real text in a grid that fits itself to the page; a click makes a picture larger."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SMALL = 64  # pixels a side, up to which each pixel is shown as a square

STYLE = (
    "<style>"
    ".tlnb-grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(var(--tlnb-cell,170px),100%),1fr));"
    "gap:12px;margin:6px 0 12px;max-width:1100px}"
    ".tlnb-grid figure{margin:0;min-width:0;font:13px/1.4 var(--jp-ui-font-family,system-ui,sans-serif)}"
    ".tlnb-grid figure:has(input:checked){grid-column:1/-1}"
    ".tlnb-grid label{display:block;cursor:zoom-in}.tlnb-grid input:checked~img{max-width:640px;max-height:none}"
    ".tlnb-grid input{position:absolute;opacity:0;pointer-events:none}"
    ".tlnb-grid input:focus-visible~img{outline:2px solid #0072b2}"
    ".tlnb-grid img{display:block;width:100%;max-height:240px;object-fit:contain;object-position:left;"
    "border-radius:4px}"
    ".tlnb-grid img.tlnb-small{image-rendering:pixelated}"
    ".tlnb-grid figcaption{margin-top:3px;opacity:1;color:inherit;overflow-wrap:anywhere}"
    ".tlnb-quiet{opacity:.68;font-size:12px}"
    ".tlnb-wrong{color:#d0651e;font-weight:600}"
    ".tlnb-bars{display:grid;grid-template-columns:minmax(0,max-content) minmax(40px,1fr) max-content;gap:2px 8px;"
    "align-items:center;margin-top:4px;font-size:12px}.tlnb-bars span{overflow:hidden;text-overflow:ellipsis}"
    ".tlnb-bars i{height:8px;border-radius:4px;background:#2b86c0;min-width:2px}"
    ".tlnb-bars i.tlnb-weak{background:#8a8a8a}"
    "</style>"
)


def image_uri(pixels: np.ndarray) -> str:
    """A picture as a data address: (H, W, 3) or (H, W), uint8; small ones exact, large ones as JPEG."""
    from PIL import Image

    file, small = io.BytesIO(), max(pixels.shape[:2]) <= 2 * SMALL
    Image.fromarray(pixels).save(
        file, format="PNG" if small else "JPEG", **({} if small else {"quality": 85})
    )
    return f"data:image/{'png' if small else 'jpeg'};base64,{b64encode(file.getvalue()).decode()}"


def uint8_of(pixels: Any) -> np.ndarray:
    """A tensor (C, H, W), uint8 or floating point in 0..1, as (H, W, 3) or (H, W), uint8."""
    found = pixels if not pixels.is_floating_point() else (255 * pixels).round().clamp(0, 255)
    array = found.byte().cpu().numpy()
    return array.transpose(1, 2, 0) if len(array) == 3 else array[0]


def figure_html(uri: str, alt: str, caption: str, *, small: bool = False) -> str:
    """A picture with a caption, HTML that was escaped already; a click makes it larger and small again."""
    kind = ' class="tlnb-small"' if small else ""
    return (
        f'<figure><label title="click for a larger picture"><input type="checkbox" aria-label="larger picture">'
        f'<img{kind} alt="{escape(alt)}" src="{uri}"></label><figcaption>{caption}</figcaption></figure>'
    )


def grid_html(figures: Iterable[str], cell: int = 170) -> str:
    """Figures side by side, as many as fit.

    Args:
        figures: of :func:`figure_html`.
        cell: the least width of one, in pixels.
    """
    return f'{STYLE}<div class="tlnb-grid" style="--tlnb-cell:{cell}px">{"".join(figures)}</div>'


def bars_html(shares: Iterable[tuple[str, float]], *, weak: bool = False) -> str:
    """Names with bars of their shares in 0..1, the first in bold.

    Args:
        shares: name and share, the largest first.
        weak: draw them in grey: they are not to be relied on.
    """
    kind = ' class="tlnb-weak"' if weak else ""
    rows = []
    for place, (name, share) in enumerate(shares):
        word = f"<b>{escape(name)}</b>" if not place else escape(name)
        rows.append(
            f"<span>{word}</span><i{kind} style='width:{max(100 * share, 0.5):.1f}%'></i>"
            f"<span>{100 * share:.0f} %</span>"
        )
    return f'<div class="tlnb-bars">{"".join(rows)}</div>'
