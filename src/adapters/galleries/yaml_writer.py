"""YAML as LocalAI writes it: four spaces, lists indented, keys as they come, long texts as blocks."""

import math
from typing import Any

import yaml

from ...domain.yaml_values import reads_otherwise

_STR = "tag:yaml.org,2002:str"
_EXACT = 1e21  # Go writes larger floats with an exponent
_INDENT = 4
_IN_A_LIST = 2  # what follows a `- ` stands two columns on


def write_yaml(document: object) -> bytes:
    """`document` (dicts, lists, texts, numbers, truth values, None) as the yaml.v3 package writes it.

    A text that would be read as something else stands in double quotes.
    """
    text: str = yaml.dump(
        document,
        Dumper=_Dumper,
        default_flow_style=False,
        indent=_INDENT,
        width=math.inf,
        allow_unicode=True,
        sort_keys=False,
    )
    return text.encode()


class _Dumper(yaml.SafeDumper):
    """PyYAML's, with yaml.v3's indentation and quotes."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del flow, indentless
        self.indents.append(self.indent)
        if self.indent is None:
            self.indent = 0
        elif self.sequence_context:
            self.indent += _IN_A_LIST
        else:
            self.indent = _INDENT * ((self.indent + _INDENT) // _INDENT)

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if "\n" in text:
        style = "|"
    elif reads_otherwise(text) or _tag(dumper, text) != _STR:
        style = '"'
    return dumper.represent_scalar(_STR, text, style=style)


def _float(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    if math.isnan(number):
        text = ".nan"
    elif math.isinf(number):
        text = ".inf" if number > 0 else "-.inf"
    else:
        text = repr(int(number)) if number.is_integer() and abs(number) < _EXACT else repr(number)
    return dumper.represent_scalar(_tag(dumper, text), text)


def _tag(dumper: yaml.SafeDumper, text: str) -> str:
    """What PyYAML would take `text` for; where that is not what it is, it writes quotes or a tag."""
    tag: str = dumper.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag


_Dumper.add_representer(str, _text)
_Dumper.add_representer(float, _float)
