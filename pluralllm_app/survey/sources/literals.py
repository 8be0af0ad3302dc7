"""Lists and mappings that were saved as text, in the ways in which people save them.

Python writes ``['Yes', 'No']`` and ``defaultdict(<class 'list'>, {'Peru': [0.5, 0.5]})``, JSON
``["Yes", "No"]``, and numpy ``array([0.5, 0.5])``, ``np.float64(0.5)`` and ``['Yes' 'No']``. Texts
are parsed and never evaluated.
"""

import ast
import json
import re
from io import StringIO
from tokenize import NEWLINE, NL, STRING, TokenError, generate_tokens
from typing import Any, cast

_DEFAULTDICT = re.compile(r"(?:collections\.)?defaultdict\((?:<class 'list'>|list), *(.*)\)", re.S)
_NUMBER = re.compile(r"\b(?:np|numpy)\.float(?:16|32|64)\(([^()]*)\)")
_NON_FINITE = re.compile(r"(?<=[\[ ,])-?(?:nan|inf)(?=[,\]])")
_TEXTS_APART = re.compile(r"""['"]\s+['"]""")
_NUMBERS_APART = re.compile(r"\[\s*((?:[-+.\de]+|nan|inf)(?:\s+(?:[-+.\de]+|nan|inf))+)\s*\]")
_WRAPPERS = ("array", "str_", "dict", "OrderedDict")  # calls whose argument is what is meant


class Pairs(list[tuple[Any, Any]]):
    """The items of a mapping, in which a key may occur twice."""


def parse(text: str) -> Any:
    """Return what a text holds: lists, texts, numbers and None, and `Pairs` for mappings.

    nan and inf both become inf.

    >>> parse("defaultdict(<class 'list'>, {'Peru': [np.float64(0.5), nan]})")
    [('Peru', [0.5, inf])]
    >>> parse("['Yes' 'No']")
    ['Yes', 'No']

    Raises:
        ValueError, SyntaxError, MemoryError, RecursionError: it holds something else, or too much.
    """
    text = text.strip()
    if text.startswith(("{", "[")):
        try:
            return json.loads(text, object_pairs_hook=Pairs)
        except ValueError:
            pass  # Python's quotation marks may be those of JSON
    inside = _DEFAULTDICT.fullmatch(text)
    text = text if inside is None else inside[1]
    if ".float" in text:
        text = _NUMBER.sub(r"\1", text)
    if _TEXTS_APART.search(text):
        text = _with_commas(text)
    text = _NON_FINITE.sub("1e999", text)
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        text = _NUMBERS_APART.sub(lambda found: f"[{','.join(found[1].split())}]", text)
        tree = ast.parse(_NON_FINITE.sub("1e999", text), mode="eval")
    return _value(tree.body)


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError("a mapping that takes in another one")
        keys = _values(cast(list[ast.expr], node.keys))
        return Pairs(zip(keys, _values(node.values), strict=True))
    if isinstance(node, ast.List | ast.Tuple):
        return _values(node.elts)
    if isinstance(node, ast.Call) and node.args and _name(node.func) in _WRAPPERS:
        return _value(node.args[0])
    return ast.literal_eval(node)


def _name(function: ast.expr) -> str:
    return ast.unparse(function).rpartition(".")[2]


def _values(nodes: list[ast.expr]) -> list[Any]:
    if all(map(_is_flat, nodes)):  # all at once, which is several times as fast
        found: list[Any] = ast.literal_eval(ast.List(nodes, ast.Load()))
        return found
    return [_value(node) for node in nodes]


def _is_flat(node: ast.expr) -> bool:
    """Whether a node is a text or number, or a list of these."""
    kinds = {*map(type, node.elts)} if isinstance(node, ast.List) else {type(node)}
    return kinds <= {ast.Constant, ast.UnaryOp}


def _with_commas(text: str) -> str:
    """Put a comma between texts without one, which Python would join to a single text."""
    written: list[str] = []
    before = None
    try:
        for token in generate_tokens(StringIO(text).readline):
            if token.type not in (NL, NEWLINE):
                written += [","] * (before == token.type == STRING) + [token.string]
                before = token.type
    except TokenError as error:
        raise ValueError("it ends in the middle") from error
    return " ".join(written)
