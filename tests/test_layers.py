"""Imports point down only: the layers of the design, read from the code."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "openclimb"

# Each layer may import those below it, and its own modules only where its row says so.
LAYERS: list[set[str]] = [
    {"cli", "__init__"},
    {"api", "testing"},
    {"report", "trackers"},
    {"validation", "export"},
    {"pipeline", "recipes", "planning", "annotations", "students"},
    {"objectives", "baselines"},
    {"clustering", "search", "proxy"},
    {"quality"},
    {"corpus", "tasks", "stats"},
    {"engines", "workspace", "progress"},
    {"config"},
    {"mixture", "errors", "system_errors", "masking", "printable", "remote_code", "seeds"},
]
SIBLINGS = ({"clustering", "search", "proxy"}, {"validation", "export"})  # none imports another
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}
TORCH = ("proxy/", "baselines/doremi.py", "testing/models.py")  # may import torch at their top
HEAVY = set("torch lightgbm faiss sklearn scipy pyarrow plotly tokenizers transformers rich jinja2".split())


def _part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(path: Path) -> list[tuple[str, bool]]:
    """Return (module, at the top?) of every import; those for type checking only are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set()
    for node in tree.body:
        top.add(id(node))
    found = []
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, id(node) in top))
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    part = _part(path)
    assert part in RANK, f"{part} stands in no layer"
    for module, _ in _imports(path):
        if not module.startswith("openclimb."):
            continue
        other = module.split(".")[1]
        if other == part:
            continue
        assert RANK[other] >= RANK[part], f"{part} imports {other}, which stands above it"
        assert not any({part, other} <= some for some in SIBLINGS), f"{part} imports its sibling {other}"


@pytest.mark.parametrize("part", ["report", "export"])
def test_nobody_imports_report_and_export_but_the_front(part: str) -> None:
    for path in SOURCE.rglob("*.py"):
        if _part(path) not in (part, "api", "cli", "testing"):
            assert not any(module.startswith(f"openclimb.{part}") for module, _ in _imports(path)), path


def test_search_knows_no_torch_and_proxy_no_lightgbm() -> None:
    for part, foreign in (("search", "torch"), ("proxy", "lightgbm"), ("report", "torch"), ("report", "lightgbm")):
        for path in (SOURCE / part).rglob("*.py"):
            assert not any(module.split(".")[0] == foreign for module, _ in _imports(path)), path


def test_heavy_libraries_load_only_where_they_work() -> None:
    for path in SOURCE.rglob("*.py"):
        heavy = {module.split(".")[0] for module, top in _imports(path) if top} & HEAVY
        if str(path.relative_to(SOURCE)).startswith(TORCH):
            heavy -= {"torch", "transformers"}  # nothing imports them before trials run
        assert not heavy, f"{path.name} imports {heavy} at its top"


def test_nothing_but_engines_reads_pickles() -> None:
    """Engines hand work to processes of our own; nothing that a user brings or keeps is a pickle."""
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert _part(path) == "engines" or "pickle" not in {module.split(".")[0] for module, _ in _imports(path)}, path
        assert "torch.load" not in text, path
        assert text.count("np.load(") <= text.count("allow_pickle=False"), path


def test_every_map_says_where_its_work_may_lie() -> None:
    """Without a folder, work for other machines would lie where the command was given, which they need not see."""
    bare = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in sorted(SOURCE.rglob("*.py"))
        if "testing" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("engine.map")
        if "folder" not in {keyword.arg for keyword in node.keywords}
    ]
    assert bare == []
