"""Every option that a help text shows is used by a test, has words of its own, and stands in the README's table."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from daskconv.cli import commands
from daskconv.cli.group import EXIT_CODES

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- options: python tests/cli/test_every_option.py -->", "<!-- options end -->"


def options():
    """Yield each command's name and an option that its help shows."""
    for name, command in sorted(commands.commands.items()):
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                yield name, parameter


def long_name(option):
    """Of a pair such as --tls and --no-tls, the one that is no default."""
    return next(word for word in option.secondary_opts or option.opts if word.startswith("--"))


def words_of_tests():
    """Return the words in the texts of each test, with those of the module's tables and lines that it names."""
    found = []
    for path in (ROOT / "tests").rglob("*.py"):
        if path == Path(__file__):
            continue
        statements = ast.parse(path.read_text()).body
        named = {}
        for statement in statements:
            words = words_in(statement)
            if isinstance(statement, ast.Assign | ast.AugAssign):
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                for target in targets:
                    named[getattr(target, "id", "")] = named.get(getattr(target, "id", ""), set()) | words
            uses = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
            # Helpers that run a command bear its name.
            found.append((words | uses).union(*(named.get(name, set()) for name in uses)))
    return found


def words_in(statement):
    texts = [
        node.value
        for node in ast.walk(statement)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return {word for text in texts for word in text.split()}


def test_each_option_is_used_by_a_test():
    found = words_of_tests()
    unused = [
        f"{name} {long_name(option)}"
        for name, option in options()
        if not any({name, long_name(option)} <= words for words in found)
    ]
    assert unused == []


def test_each_option_has_words_of_help():
    silent = [f"{name} {long_name(option)}" for name, option in options() if not option.help]
    assert silent == []


def test_each_help_begins_with_a_sentence_and_has_an_example():
    for name, command in commands.commands.items():
        text = inspect.cleandoc(command.help)
        assert re.match(r"[A-Z][^\n]+\.$", text.split("\n\n")[0].replace("\n", " ")), name
        assert f"daskconv {name}" in text or name == "info", f"{name} has no example"
        assert len(command.get_short_help_str(200)) <= 50, f"{name} is cut off in the list of commands"


# -------------------------------------------------------------------------------- the README


def table():
    """Return the README's table of all options: a row for those of several commands that mean the same."""
    rows = {}
    for name, option in options():
        words = long_name(option)
        if not option.is_flag:
            words += f" {option.make_metavar(click.Context(commands.commands[name]))}"
        for long, short in (("INTEGER RANGE", "N"), ("FLOAT RANGE", "X"), ("|", " or ")):
            words = words.replace(long, short)
        rows.setdefault((words, meaning(option)), []).append(f"`{name}`")
    lines = [f"| {', '.join(names)} | `{words}` | {text} |" for (words, text), names in rows.items()]
    return "\n".join(["| command | option | meaning |", "|---|---|---|", *lines])


def meaning(option):
    text = (option.help or "").replace("|", "\\|").replace("  [", " [")
    default = option.default
    if option.show_default and default is not None:
        text = f"{text} [default: {default}]".strip()
    return text


def parts_of_readme():
    before, _, rest = README.read_text().partition(BEGIN)
    inside, _, after = rest.partition(END)
    return before, inside, after


def test_the_readme_has_the_table_of_all_options():
    assert parts_of_readme()[1].strip() == table(), f"run: python {Path(__file__).relative_to(ROOT)}"


def test_the_readme_has_the_exit_codes():
    text = README.read_text()
    missing = [code for code, words in EXIT_CODES.items() if f"| {code} | {words} |" not in text]
    assert missing == []


def test_help_is_quick():
    probe = "import time; t = time.perf_counter(); import daskconv.cli; print(time.perf_counter() - t)"
    out = [
        subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    assert min(float(each.stdout) for each in out) < 1.0


@pytest.mark.parametrize("heavy", ["numpy", "numba", "distributed", "bokeh"])
def test_help_imports_nothing_heavy(heavy):
    probe = f"import sys, daskconv.cli; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT).returncode == 0


if __name__ == "__main__":
    before, _, after = parts_of_readme()
    README.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}")
