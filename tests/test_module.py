"""The module's own form: its size is a feature, as it is to be read before it is trusted."""

import ast
import io
import re
import token
import tokenize
from typing import Any, List

from conftest import ROOT

SOURCE = (ROOT / "data_collect.py").read_text(encoding="utf-8")
LINES = SOURCE.splitlines()
LAYOUT = {tokenize.COMMENT, tokenize.NL, token.NEWLINE, token.INDENT, token.DEDENT, token.ENDMARKER}
FUNCTIONS = [node for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.FunctionDef)]


def tokens() -> int:
    """Count the tokens that are no comment, docstring or layout; an f-string is one, as before
    Python 3.12.
    """
    number = within = 0
    for one in tokenize.generate_tokens(io.StringIO(SOURCE).readline):
        name = token.tok_name[one.type]
        number += one.type not in LAYOUT and not within
        within += (name == "FSTRING_START") - (name == "FSTRING_END")
    named = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = [
        node for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, named) and has_text(node)
    ]
    return number - len(docstrings)


def has_text(node: Any) -> bool:
    """Tell whether a module, class or function has a docstring."""
    return ast.get_docstring(node) is not None


def last_line(node: Any) -> int:
    """The last line of a piece of code; Python 3.6 doesn't tell it."""
    return max(getattr(one, "lineno", 0) for one in ast.walk(node))


def test_size() -> None:
    """Before it grows further, ask what can go."""
    assert len(LINES) <= 1110
    assert tokens() <= 6050
    assert tokens() / len(LINES) <= 6.0


def test_the_story_comes_first() -> None:
    assert LINES.index("def monthly_run() -> int:") < 99


def test_rooms() -> None:
    banners = [at for at, line in enumerate(LINES) if re.match("# ---- .+ -+$", line)]
    assert all(len(LINES[at]) == 99 for at in banners)
    rooms = [after - at for at, after in zip(banners, [*banners[1:], len(LINES)])]
    assert len(rooms) > 10
    assert max(rooms) <= 130


def test_functions_are_short() -> None:
    sizes: List[int] = [last_line(node) - node.lineno + 1 for node in FUNCTIONS]
    assert max(sizes) <= 32
    assert sorted(sizes)[len(sizes) // 2] <= 12


def test_functions_say_what_they_do() -> None:
    silent = {node.name for node in FUNCTIONS if not has_text(node)}
    assert silent <= {"__init__", "emit"}
