"""What is known of one command: enough to parse its line, complete it, and write its help."""

from __future__ import annotations

from dataclasses import dataclass

from tlnb.magics.values import Kind


@dataclass(frozen=True)
class Argument:
    """A word that a command takes by its place.

    Args:
        name: what it is called in help and errors.
        kind: what it takes.
        help: one sentence.
        required: whether the line is wrong without it.
        several: whether words that commas join (``2:4, 7``) are one argument.
        repeats: whether it takes all words that are left, one or more; only the last one may.
    """

    name: str
    kind: Kind
    help: str
    required: bool = True
    several: bool = False
    repeats: bool = False

    @property
    def usage(self) -> str:
        """How it stands in a usage line."""
        if self.repeats:
            return f"{self.name.upper()} ..."
        return self.name.upper() if self.required else f"[{self.name.upper()}]"


@dataclass(frozen=True)
class Option:
    """A value that a command takes by its name.

    Args:
        name: as the user writes it, without dashes; ``per-class`` becomes the keyword ``per_class``.
        kind: what it takes; None for a flag, which passes ``True``. The flag ``no-cache`` passes ``False`` to
            the keyword ``cache``.
        help: one sentence.
        default: what holds without it, in words.
        alone: what stands for a value that is left out; empty where one is needed.
    """

    name: str
    kind: Kind | None
    help: str
    default: str = ""
    alone: str = ""

    @property
    def keyword(self) -> str:
        """The keyword argument of the session's method."""
        name = self.name.removeprefix("no-") if self.kind is None else self.name
        return name.replace("-", "_")

    @property
    def flag(self) -> bool:
        """What a flag passes."""
        return not self.name.startswith("no-")


@dataclass(frozen=True)
class Command:
    """One magic: one call on the session.

    Args:
        name: of the magic, without ``%``.
        target: the session's method or, with ``read_only``, the attribute that is returned.
        summary: one sentence.
        arguments: taken by place, in order.
        options: taken by name: ``--name value``.
        bare: whether options may also be written as ``name value`` or ``name=value``.
        read_only: whether ``target`` is an attribute, not a method.
        switches: pairs of a flag, or an option, and the session's method that is called in place of ``target`` where it
            is set.
        cell: the session's method that takes the body of ``%%name``; empty where there is no cell form.
        body: what the cell body holds, one sentence.
        body_as: the argument by place that the body stands for, so that the line of the cell takes the others; empty
            where the body is all.
        details: more for the help, as paragraphs.
        examples: (line or cell, what it does) pairs.
    """

    name: str
    target: str
    summary: str
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    bare: bool = False
    read_only: bool = False
    switches: tuple[tuple[str, str], ...] = ()
    cell: str = ""
    body: str = ""
    body_as: str = ""
    details: str = ""
    examples: tuple[tuple[str, str], ...] = ()

    def option(self, name: str) -> Option | None:
        """The option of that name; underscores stand for dashes too."""
        wanted = name.replace("_", "-")
        return next((option for option in self.options if option.name.replace("_", "-") == wanted), None)

    def by_place(self, *, cell: bool) -> tuple[Argument, ...]:
        """What a line takes by its place; that of a cell none, or all that is not its body."""
        if not cell:
            return self.arguments
        return tuple(a for a in self.arguments if self.body_as and a.name != self.body_as)

    @property
    def usage(self) -> str:
        """The line in short: ``%tl_freeze LAYERS``."""
        words = [argument.usage for argument in self.arguments]
        if self.bare:
            words.append("[KEY VALUE ...]")
        elif self.options:
            words.append("[--OPTION VALUE ...]")
        return " ".join([f"%{self.name}", *words])
