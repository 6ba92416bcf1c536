"""One idea per file and per function: none grows past what fits a head."""

import ast
from pathlib import Path

SIM = Path(__file__).resolve().parents[2] / "sim"
FILES = {file: file.read_text(encoding="utf-8") for file in sorted(SIM.rglob("*.py"))}
LONGEST = 80  # lines
LONGEST_FILE = 400


def test_no_long_file():
    assert len(FILES) > 700
    assert {str(file.relative_to(SIM)) for file, text in FILES.items() if text.count("\n") > LONGEST_FILE} == set()


def test_no_long_function():
    functions = (
        (file, node)
        for file, text in FILES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    sizes = {f"{file.relative_to(SIM)}:{f.lineno} {f.name}": (f.end_lineno or 0) - f.lineno + 1 for file, f in functions}

    assert len(sizes) > 5000
    assert {name: size for name, size in sizes.items() if size > LONGEST} == {}
