"""A training step of the user's own, from the body of a ``%%tl_step`` cell."""

from __future__ import annotations

import ast
import linecache
from types import CodeType, FunctionType
from typing import Any

from tlnb.errors import BadArguments, TrainingError

_FILE = "<%%tl_step>"
_NAME = "training_step"
_NAMES = ("model", "x", "y")


class CellStep:
    """A training step compiled from plain PyTorch text.

    Called with a network, a batch of inputs (B, C, H, W) and its targets (B,), it gives the loss, a tensor of
    one number. The text is the body of a function whose globals are the user's, so imports, functions and
    variables of the notebook can be used, and names set in it do not leak out.

    Args:
        source: the text.
        namespace: the user's variables; they are looked up when the step runs, not now.

    Raises:
        BadArguments: the text is not Python, or never sets ``loss``; one line with the place.
    """

    def __init__(self, source: str, namespace: dict[str, Any]) -> None:
        self.source = source.strip("\n")
        # Tracebacks of the user's own mistakes show the user's own lines.
        linecache.cache[_FILE] = (len(source), None, source.splitlines(keepends=True), _FILE)
        self._function = FunctionType(_compile(source), namespace, _NAME)

    def __call__(self, model: Any, x: Any, y: Any) -> Any:
        """The loss of one batch.

        Raises:
            TrainingError: ``loss`` was not set, or is not a tensor of one number.
        """
        try:
            loss = self._function(model, x, y)
        except UnboundLocalError as error:
            if error.name not in (None, "loss") or "'loss'" not in str(error):
                raise
            raise TrainingError("the step of %%tl_step did not set loss for this batch") from None
        if not hasattr(loss, "backward") or loss.numel() != 1:
            shape = f" of shape {tuple(loss.shape)}" if hasattr(loss, "shape") else ""
            raise TrainingError(
                f"the step of %%tl_step set loss to a {type(loss).__name__}{shape}; "
                "it must be a tensor of one number"
            )
        return loss

    def __repr__(self) -> str:
        count = len(self.source.splitlines())
        return f"training step set: {count} line{'s' * (count != 1)}; %tl_step off goes back to the usual one"


class UsualStep:
    """Says that the usual step is in use; what ``%tl_step off`` returns."""

    def __repr__(self) -> str:
        return "training step: the usual one"


def _compile(source: str) -> CodeType:
    try:
        module = ast.Module([_function(ast.parse(source, _FILE).body)], [])
        code = compile(ast.fix_missing_locations(module), _FILE, "exec")
    except SyntaxError as error:
        text = (error.text or "").strip()
        shown = f": {text!r}" if text else ""
        raise BadArguments(f"%%tl_step: line {error.lineno}: {error.msg}{shown}") from None
    body = next(const for const in code.co_consts if isinstance(const, CodeType))
    # The compiler knows what the body sets itself; a loss of the notebook or of an inner function is not it.
    if "loss" not in body.co_varnames + body.co_cellvars:
        raise BadArguments("%%tl_step: the body never sets loss; set it: loss = F.cross_entropy(model(x), y)")
    return body


def _function(body: list[ast.stmt]) -> ast.FunctionDef:
    # A tree, not indented text, so that line numbers and strings of several lines stay right.
    give: ast.stmt = ast.Return(ast.Name("loss", ast.Load()))
    arguments = ast.arguments([], [ast.arg(name) for name in _NAMES], None, [], [], None, [])
    function = ast.parse(f"def {_NAME}(): pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    function.args, function.body = arguments, [*body, ast.copy_location(give, body[-1]) if body else give]
    return function
