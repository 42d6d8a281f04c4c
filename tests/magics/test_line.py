from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlnb.errors import BadArguments
from tlnb.magics.line import split_line, value_of

WORDS = [
    ("", []),
    ("   ", []),
    ("0:5", ["0:5"]),
    ("  0:5   head ", ["0:5", "head"]),
    ("\t0:5\t", ["0:5"]),
    # what IPython and argparse get wrong
    ("re:^layer{2}$", ["re:^layer{2}$"]),
    ("{expr}", ["{expr}"]),
    ('--data="my pictures" 0:5', ["--data=my pictures", "0:5"]),
    ('--data "my pictures"', ["--data", "my pictures"]),
    ("0:5 # note", ["0:5"]),
    ("-1:", ["-1:"]),
    ("-1", ["-1"]),
    ("-3:", ["-3:"]),
    # comments start at a word
    ("# all of it", []),
    ("0:5 #note", ["0:5"]),
    ("c#sharp", ["c#sharp"]),
    ("'#1.png'", ["#1.png"]),
    # quotes
    ("'my pictures'", ["my pictures"]),
    ('"it\'s"', ["it's"]),
    ("'say \"a\"'", ['say "a"']),
    ("''", [""]),
    ("'a b'/c", ["a b/c"]),
    ("'a b'\"c d\"", ["a bc d"]),
    ("O'Neil it's", ["O'Neil", "it's"]),
    ("weights='a b'", ["weights=a b"]),
    # paths
    (r"C:\new\table\data", [r"C:\new\table\data"]),
    (r'"C:\my files\new\"', ["C:\\my files\\new\\"]),
    (r"\\server\share", [r"\\server\share"]),
    (r"C:\$Recycle.Bin", [r"C:\$Recycle.Bin"]),
    ("~/a=b/c", ["~/a=b/c"]),
    (r"\$name", ["$name"]),
    (r"--data=\$name", ["--data=$name"]),
]


@pytest.mark.parametrize(("line", "words"), WORDS)
def test_words(line: str, words: list[str]) -> None:
    assert [word.text for word in split_line(line)] == words


@pytest.mark.parametrize("word", ["-1:", "-1", "-3:", "-.5", "-", "'--valid'", '"--valid=1"', "a--b"])
def test_is_no_option(word: str) -> None:
    assert [part.is_option for part in split_line(word)] == [False]


@pytest.mark.parametrize("word", ["--valid", "--valid=0.2", "--valid='0.2'", "-v"])
def test_is_an_option(word: str) -> None:
    assert [part.is_option for part in split_line(word)] == [True]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$share", 0.3),
        ("'$share'", "$share"),
        ('"$share"', "$share"),
        (r"\$share", "$share"),
        ("$share/x", "$share/x"),
        ("$share$", "$share$"),
        ("a$share", "a$share"),
        ("{share}", "{share}"),
        ("$1", "$1"),
        ("$", "$"),
    ],
)
def test_only_a_name_alone_is_a_variable(text: str, value: object) -> None:
    (word,) = split_line(text)
    assert value_of(word, {"share": 0.3}) == value


def test_the_value_of_an_option_can_be_a_variable() -> None:
    name, value = split_line("--valid=$share")[0].split()
    assert (name, value and value_of(value, {"share": 0.3})) == ("--valid", 0.3)
    _, literal = split_line("--valid='$share'")[0].split()
    assert literal is not None
    assert value_of(literal, {"share": 0.3}) == "$share"


def test_an_unknown_variable_names_the_nearest() -> None:
    with pytest.raises(BadArguments, match=r"^there is no variable 'modle'; did you mean 'model'\?$"):
        value_of(split_line("$modle")[0], {"model": 1, "_modle": 2})


@pytest.mark.parametrize("line", ["'my pictures", '--data="my', "a 'b' \"c"])
def test_an_open_quote_is_an_error(line: str) -> None:
    with pytest.raises(BadArguments, match=r"^the quote .* is never closed$"):
        split_line(line)


@given(st.lists(st.text(st.characters(exclude_characters="'", exclude_categories=("Cs",)))))
def test_what_stands_in_quotes_comes_out_as_it_is(texts: list[str]) -> None:
    words = split_line(" ".join(f"'{text}'" for text in texts))
    assert [word.text for word in words] == texts
    assert [word.plain for word in words] == [0] * len(texts)
