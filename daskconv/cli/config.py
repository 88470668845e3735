"""``--config FILE.yaml``: the options of a command from a file; what the command line says goes before it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import click

from daskconv.errors import InputError

_LONGEST = 1 << 20  # bytes: a file of options has a page or two


def config_option() -> click.Option:
    """Return the option that every command with options has."""
    return click.Option(
        ["--config"],
        type=click.Path(),
        metavar="FILE.yaml",
        is_eager=True,
        expose_value=False,
        callback=_apply,
        help="Take options from here, without dashes: 'batch-size: 50'; the command line goes before it.",
    )


def given(context: click.Context) -> set[str]:
    """Return the names of the options that the user gave, on the command line or in a file."""
    usual = (click.core.ParameterSource.DEFAULT, None)
    return {name for name in context.params if context.get_parameter_source(name) not in usual}


def _apply(context: click.Context, _: click.Parameter, path: str | None) -> None:
    if path is None:
        return
    options = {
        option.opts[-1].removeprefix("--"): option
        for option in context.command.params
        if isinstance(option, click.Option) and option.expose_value
    }
    found = {}
    for key, value in _read(path).items():
        name = str(key).replace("_", "-")
        if name not in options:
            nearest = get_close_matches(name, options, n=1, cutoff=0.0)[0]
            raise InputError(
                f"{path} has the key {str(key)!r}, which {context.command_path} does not know: "
                f"the nearest one is {nearest!r}."
            )
        if value is not None:
            found[options[name].name] = _words(path, name, value, options[name])
    context.default_map = found


def _read(path: str) -> dict[Any, Any]:
    """Return the file's mapping; safe loading makes nothing but numbers, texts, lists and mappings."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise InputError(f"{path} is larger than 1 MiB: give a file of options.")
        found = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as YAML ({_inline(error)}).") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no options: give lines such as 'batch-size: 50'.")
    return found


def _words(path: str, name: str, value: Any, option: click.Option) -> Any:
    """Return a value as the command line would have it, so that the option's type checks it."""
    several = option.multiple or option.nargs != 1
    if option.is_flag:
        if isinstance(value, bool):
            return value
        raise InputError(f"{name} of {path} is {value!r}: give true or false.")
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, dict | list | bool | type(None)) for item in items):
        raise InputError(f"{name} of {path} is {value!r}: give {'a list' if several else 'one value'}.")
    words = [str(item) for item in items]
    return words if several else ",".join(words)


def _inline(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
