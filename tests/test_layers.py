"""The shape of the house, read from the files: who imports whom, how long modules are, and what is documented."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("actors", "gateway", "handlers")
MAY_IMPORT_RAY = {
    "carrier",
    "cluster",
    "deaths",
    "probe",
    "fleet",
    "launcher",
    "master",
    "operator",
    "server",
    "supervisor",
}
"""The modules of ``actors`` that are about Ray itself; what decides is pure and tested without it."""

MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
GAMES = sorted((ROOT / "examples").rglob("*.py"))


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level name of everything that a module imports, wherever in it."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: imports name their whole path"
            assert node.module is not None
            yield node.module.partition(".")[0]


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield the public classes and functions of a module, and their public methods, with their names."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if not any("overload" in ast.unparse(decorator) for decorator in node.decorator_list):
                yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{node.name}.")


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 30
    assert GAMES


@pytest.mark.parametrize("path", [p for p in MODULES if p.relative_to(ROOT).parts[0] != "actors"], ids=lambda p: p.stem)
def test_gateway_and_handlers_import_neither_ray_nor_each_other_nor_actors(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    forbidden = {"ray", *PACKAGES} - {own}
    assert not forbidden & set(imported(path))


@pytest.mark.parametrize("path", [p for p in MODULES if p.relative_to(ROOT).parts[0] == "actors"], ids=lambda p: p.stem)
def test_only_the_modules_about_ray_import_it(path: Path) -> None:
    assert path.stem in MAY_IMPORT_RAY or "ray" not in set(imported(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_nothing_of_the_project_imports_tests_examples_or_benchmarks(path: Path) -> None:
    assert not {"tests", "examples", "benchmarks"} & set(imported(path))


@pytest.mark.parametrize("path", GAMES, ids=names(GAMES))
def test_game_code_imports_only_handlers_from_the_project(path: Path) -> None:
    assert not {"actors", "gateway", "ray"} & set(imported(path))


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.relative_to(ROOT).parts[0] == "handlers"], ids=lambda p: p.stem
)
def test_handlers_touches_no_socket(path: Path) -> None:
    assert not {"socket", "ssl", "websockets", "uvloop"} & set(imported(path))


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_no_module_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_every_public_module_class_and_function_is_documented(path: Path) -> None:
    tree = tree_of(path)
    missing = [] if ast.get_docstring(tree) else ["the module"]
    for name, node in public(tree.body):
        assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if not ast.get_docstring(node) and not node.name.startswith("__"):
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_packages_contents_are_what_it_imports(package: str) -> None:
    path = ROOT / package / "__init__.py"
    if not path.exists():
        pytest.skip(f"{package} is not there yet")
    listed: list[str] = []
    brought: list[str] = []
    for node in tree_of(path).body:
        if isinstance(node, ast.ImportFrom):
            brought += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed += ast.literal_eval(node.value)
        else:
            assert isinstance(node, ast.Expr), f"{path} holds more than a table of contents: line {node.lineno}"
    assert sorted(listed) == sorted(brought)
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.stem != "__init__"], ids=names([p for p in MODULES if p.stem != "__init__"])
)
def test_a_modules_own_list_names_what_is_in_it(path: Path) -> None:
    tree = tree_of(path)
    defined = {node.name for _, node in public(tree.body) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            defined |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.AsyncFunctionDef):
            defined.add(node.name)
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            assert set(ast.literal_eval(node.value)) <= defined
