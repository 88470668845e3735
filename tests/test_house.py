"""The rules of the house: imports point up, importing is quick, files and functions stay short."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "daskconv"
# From the top of the house down; a room imports itself and the rooms before it.
ROOMS = [
    "errors",
    "config",
    "private",
    "geometry",
    "layout",
    "timeline",
    "kernels",
    "graph",
    "nn",
    "plan",
    "cost",
    "events",
    "datasets",
]
ROOMS += ["run", "scene", "train", "dashboard", "launch", "onnx_backend", "cli"]
SCRIPTS = [ROOT / ".ci" / "run", *sorted((ROOT / "cluster").glob("*.sh"))]


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def package_of(path: Path) -> list[str]:
    """The dotted package that relative imports in `path` start from."""
    return list(path.relative_to(PACKAGE.parent).parent.parts)


def imports(path: Path, source: str) -> Iterator[str]:
    """Every module that `source` imports, anywhere in the file, as absolute dotted names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = package_of(path)
            base = package[: len(package) + 1 - node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            # `from daskconv import nn` imports a room; `from daskconv.nn import Conv` imports from one.
            yield from (f"{name}.{alias.name}" for alias in node.names) if name == "daskconv" else (name,)


def complaints(path: Path, source: str) -> list[str]:
    """What is wrong with the imports of one module, a sentence each."""
    where = path.relative_to(PACKAGE.parent)
    if where.parts[1] in ("__init__.py", "__main__.py"):
        return []
    room = where.parts[1].removesuffix(".py")
    if room not in ROOMS:
        return [f"{where} is in no known room: add {room!r} to ROOMS, at its place in the order"]
    found = []
    for name in imports(path, source):
        top, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if room == "kernels" and top in ("dask", "distributed", "dask_mpi"):
            found.append(f"{where} imports {name}, but kernels see NumPy blocks only")
        if top != "daskconv" or target == "__version__":
            continue
        if target in ROOMS and ROOMS.index(target) > ROOMS.index(room):
            found.append(f"{where} imports daskconv.{target}, which lies below it")
        elif target not in ROOMS and room != "cli":
            found.append(f"{where} imports {name} from the top: import it from the room it lives in")
    return found


def test_imports_point_up() -> None:
    wrong = [line for path in modules() for line in complaints(path, path.read_text())]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("file", "source", "sentence"),
    [
        (
            "kernels/x.py",
            "import daskconv.nn",
            "daskconv/kernels/x.py imports daskconv.nn, which lies below it",
        ),
        ("kernels/x.py", "from ..nn.layers import Conv", "imports daskconv.nn, which lies below it"),
        ("kernels/x.py", "from .. import nn", "imports daskconv.nn, which lies below it"),
        ("kernels/x.py", "def f():\n    from daskconv import nn", "imports daskconv.nn, which lies below it"),
        ("kernels/x.py", "import dask.array as da", "kernels see NumPy blocks only"),
        ("nn/x.py", "from daskconv import Model", "imports daskconv.Model from the top"),
        ("utils.py", "", "add 'utils' to ROOMS"),
        ("nn/x.py", "from . import layers\nfrom ..errors import InputError\nimport dask", None),
        ("nn/a/x.py", "from ...kernels import gemm\nfrom .b import c", None),
        ("__init__.py", "from .cli import main", None),
    ],
)
def test_the_import_check_sees(file: str, source: str, sentence: str | None) -> None:
    found = complaints(PACKAGE / file, source)
    assert (found == []) if sentence is None else (len(found) == 1 and sentence in found[0])


def test_importing_is_quick_and_light() -> None:
    probe = (
        "import time, sys, json; t = time.perf_counter(); import daskconv; t = time.perf_counter() - t;"
        "[getattr(daskconv, name) for name in daskconv.__all__];"
        "print(json.dumps([t, sorted({'torch', 'mpi4py', 'bokeh', 'zarr'} & set(sys.modules))]))"
    )
    runs = []
    for _ in range(3):
        out = subprocess.run(
            [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
        )
        runs.append(json.loads(out.stdout))
    assert runs[0][1] == [], f"import daskconv also imports {', '.join(runs[0][1])}"
    best = min(seconds for seconds, _ in runs)
    assert best < 1.0, f"import daskconv takes {best:.2f} s, best of 3"


def test_files_and_functions_are_short() -> None:
    long = []
    for path in modules():
        where, source = path.relative_to(ROOT), path.read_text()
        if (lines := source.count("\n")) > 450:
            long.append(f"{where} has {lines} lines: at most 450")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                lines = (node.end_lineno or node.lineno) - first.lineno + 1
                if lines > 40:
                    long.append(f"{where}:{node.lineno} {node.name} has {lines} lines of code: at most 40")
    assert not long, "\n" + "\n".join(long)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script: Path) -> None:
    out = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert script.stat().st_mode & 0o100, f"{script.name} is not executable"
