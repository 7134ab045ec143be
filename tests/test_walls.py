"""The walls of the house: what may live where, and who may import whom."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from neurokern import _C
from neurokern.core.registry import REGISTERED
from neurokern.testing import all_specs

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "neurokern"
# top to bottom: a layer imports only from those below it; the others stand beside them or above
LAYERS = ("nn", "functional", "ops", "core", "backends")
CPP = (".cpp", ".h", ".cu", ".cuh")
# bottom to top, the families above them all: a folder of csrc/ includes only itself and those before it
HOST = ("context", "tensor", "driver", "plan", "call", "cpu", "cuda")
# what epilogues, and their gradients, know of another family, and convolutions that are products of matrices
EPILOGUES = ("activation/parameter.h", "activation/cpu.h", "activation/cuda.h", "matmul/problem.h")
# what every family's kernels stand on
ENGINE = ("simd", "tile", "ptx", "elementwise", "product")

needs_sources = pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="not in a checkout")
pytestmark = needs_sources


def sources(*suffixes: str, under: str = "") -> list[Path]:
    top = (
        [ROOT / under]
        if under
        else [ROOT / d for d in ("csrc", "kernels", "emulator", "python", "tests", "benchmarks", "examples", "cmake")]
    )
    files = [p for d in top if d.is_dir() for p in d.rglob("*") if p.suffix in suffixes]
    assert files, (suffixes, under)
    return files


def code(path: Path) -> str:
    """A C++ file without comments and strings."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.S)
    return re.sub(r'"(?:\\.|[^"\\])*"', '""', text)


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), flags=re.M)


def named(found: list[tuple[Path, str]]) -> str:
    return "\n".join(f"{p.relative_to(ROOT)}: {what}" for p, what in found)


def test_asm_lives_in_one_folder() -> None:
    found = [
        (p, m.group())
        for p in sources(*CPP)
        if "kernels/cuda/ptx" not in p.as_posix()
        for m in re.finditer(r"\b(asm|__asm__|__asm)\b", code(p))
    ]
    assert not found, named(found)


def test_no_torch_header_anywhere() -> None:
    found = [(p, i) for p in sources(*CPP) for i in includes(p) if re.match(r"(torch|ATen|c10|caffe2)/", i)]
    assert not found, named(found)


def test_host_code_has_no_kernels_and_no_intrinsics() -> None:
    bad = re.compile(r"\b(__global__|__device__|_mm\d*_\w+|__m(128|256|512)\w*|immintrin\.h)\b")
    found = [(p, m.group()) for p in sources(*CPP, under="csrc") for m in bad.finditer(code(p) + str(includes(p)))]
    assert not found, named(found)


def test_kernels_know_nothing_of_python_or_allocation() -> None:
    bad = re.compile(r"Python\.h|pybind11|dlpack|\b(malloc|calloc|aligned_alloc|new)\b\s*[\(\w\[]|omp\.h|#pragma omp")
    found = [
        (p, m.group())
        for p in sources(*CPP, under="kernels")
        for m in bad.finditer(code(p) + "\n" + "\n".join(includes(p)))
    ]
    assert not found, named(found)


def test_cpp_includes_point_downwards() -> None:
    """kernels/ never includes csrc/; kernels of one device never those of another; math.h touches no memory."""
    found = []
    for p in sources(*CPP, under="kernels"):
        for i in includes(p):
            target = (p.parent / i).resolve()
            inside = target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) else ""
            own = p.relative_to(ROOT / "kernels").parts[0]
            if inside.startswith(("csrc/", "python/", "tests/")):
                found.append((p, i))
            if own in ("cpu", "cuda") and inside.startswith("kernels/" + {"cpu": "cuda", "cuda": "cpu"}[own] + "/"):
                found.append((p, i))
            if own not in ("cpu", "cuda") and re.match(r"kernels/(cpu|cuda)/", inside):
                found.append((p, i))
    assert not found, named(found)


def folder_of(path: Path) -> tuple[str, str]:
    """("csrc", folder) or (kernels' device, folder); "" for a file beside the folders."""
    top, *inner = path.relative_to(ROOT).parts[:-1]
    if top == "kernels" and inner:
        top, *inner = inner
    return top, inner[0] if inner else ""


def test_families_stand_side_by_side() -> None:
    """A folder of csrc/ includes those below it, and no family another one, neither there nor among the kernels."""
    found = []
    for p in [*sources(*CPP, under="csrc"), *sources(*CPP, under="kernels")]:
        _, own = folder_of(p)
        for i in includes(p):
            places = [base / i for base in (p.parent, ROOT / "csrc", ROOT) if (base / i).is_file()]
            if not places or not own:
                continue
            to, other = folder_of(places[0].resolve())
            below = other in HOST[: HOST.index(own)] if own in HOST else other in HOST
            if to == "csrc" and other != own and not below and i not in EPILOGUES:
                found.append((p, i))
            if to in ("cpu", "cuda") and other not in (own, *ENGINE):
                found.append((p, i))
    assert not found, named(found)


def test_the_walls_see_a_breach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("csrc/matmul/call.h", "csrc/softmax/plan.h", "csrc/tensor/view.h", "csrc/driver/table.h"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("#pragma once\n")
    (tmp_path / "kernels/cpu/softmax").mkdir(parents=True)
    (tmp_path / "kernels/cpu/softmax/entries.h").write_text("#pragma once\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    test_families_stand_side_by_side()
    breaches = {
        "csrc/matmul/call.h": "softmax/plan.h",
        "csrc/tensor/view.h": "driver/table.h",
        "csrc/driver/table.h": "matmul/call.h",
        "csrc/softmax/plan.h": "kernels/cpu/matmul/entries.h",
    }
    (tmp_path / "kernels/cpu/matmul").mkdir(parents=True)
    (tmp_path / "kernels/cpu/matmul/entries.h").write_text("#pragma once\n")
    for name, include in breaches.items():
        (tmp_path / name).write_text(f'#include "{include}"\n')
        with pytest.raises(AssertionError, match=include):
            test_families_stand_side_by_side()
        (tmp_path / name).write_text("#pragma once\n")


def test_every_source_is_compiled() -> None:
    """The build looks into the folders: a file beside them is one that nothing compiles."""
    found = [p for p in sources(".cpp", ".cu", under="csrc") if len(p.relative_to(ROOT).parts) != 3]
    assert [p.name for p in found] == ["module.cpp"]
    stray = [p for p in sources(".cpp", ".cu", under="kernels") if len(p.relative_to(ROOT).parts) != 4]
    assert not stray


def test_no_build_leaves_host_code_out() -> None:
    """The build has one host side: what a build lacks (fatbins, an instruction set) is found out at run time."""
    bad = re.compile(r"__has_include|\bNK_(HAVE|BUILD)_\w+")
    found = [(p, m.group()) for p in sources(*CPP, under="csrc") for m in bad.finditer(code(p))]
    assert not found, named(found)


def test_the_emulator_and_what_it_runs_know_nothing_of_each_other() -> None:
    """It includes its own files and the standard library alone; csrc and kernels never name it."""
    standard = re.compile(r"[a-z_]+|immintrin\.h")
    inside = ROOT / "emulator"
    found = [
        (p, i)
        for p in sources(*CPP, under="emulator")
        for i in includes(p)
        if not standard.fullmatch(i)
        and not ((p.parent / i).exists() and (p.parent / i).resolve().is_relative_to(inside))
    ]
    for p in [*sources(*CPP, under="csrc"), *sources(*CPP, under="kernels")]:
        found += [(p, m.group()) for m in re.finditer(r"\bemu::\w*|\bemu[A-Z]\w+", code(p))]
        found += [(p, i) for i in includes(p) if "emulator" in i]
    assert not found, named(found)


def imported(path: Path, package: Path = PACKAGE) -> list[tuple[str, str]]:
    """What a file of the package imports, at its top or within functions: modules as dotted names, and the names taken
    from them ("" for the module itself)."""
    home = [package.name, *path.relative_to(package).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(a.name, "") for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found += [(stem, a.name) for a in node.names]
    return found


def test_python_layers_import_downwards() -> None:
    found = []
    for rank, layer in enumerate(LAYERS):
        for p in (PACKAGE / layer).rglob("*.py"):
            for module, taken in imported(p):
                name = f"{module}.{taken}".strip(".")
                parts = name.split(".")
                if parts[0] != "neurokern" or len(parts) < 2:
                    continue
                above = parts[1] in LAYERS[:rank] or parts[1] in (
                    "testing",
                    "bench",
                    "cli",
                    "integrations",
                    "specs",
                    "optim",
                )
                below_itself = parts[1] == "kernels" and not (layer == "backends" and p.name.startswith("triton"))
                if above or below_itself:
                    found.append((p, name))
    for p in sources(".py", under="kernels"):
        for node in ast.walk(ast.parse(p.read_text())):
            if isinstance(node, ast.ImportFrom | ast.Import):
                text = ast.unparse(node)
                if re.search(r"neurokern\.(?!kernels)|from \.\.\.", text):
                    found.append((p, text))
    assert not found, named(found)


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import one another, by way of others or not."""

    def reached(start: str) -> set[str]:
        found, ahead = set(), [start]
        while ahead:
            for name in imports[ahead.pop()] - found:
                found.add(name)
                ahead.append(name)
        return found

    reach = {m: reached(m) for m in imports}
    groups = {tuple(sorted({m} | {n for n in reach[m] if m in reach[n]})) for m in imports if m in reach[m]}
    return sorted(map(list, groups))


def imports_of(package: Path) -> dict[str, set[str]]:
    """The modules of a package with those of it that they import; `from .x import y` is y where y is a module."""
    modules = {}
    for p in package.rglob("*.py"):
        parts = p.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = p
    binary = f"{package.name}._C"
    found = {}
    for name, path in modules.items():
        named_by = [(m, f"{m}.{n}" if n else m) for m, n in imported(path, package)]
        found[name] = {full if full in modules else m for m, full in named_by if m in modules and full != binary}
    return found


def test_no_circles_of_imports() -> None:
    """Also none that a function's own import hides: who imports late has a layer that points upwards."""
    imports = imports_of(PACKAGE)
    assert sum(map(len, imports.values())) > len(imports), "the imports are not seen"
    assert not circles(imports), "\n".join(" <-> ".join(c) for c in circles(imports))


def test_circles_are_seen(tmp_path: Path) -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"e"}}) == [["a", "b", "c"], ["e"]]
    package = tmp_path / "p"
    (package / "q").mkdir(parents=True)
    (package / "__init__.py").write_text("from . import _C, one\n")
    (package / "one.py").write_text("from .q.two import something\nfrom . import _C\n")
    (package / "q" / "__init__.py").write_text("")
    (package / "q" / "two.py").write_text("def late():\n    from ..one import something\n")
    assert circles(imports_of(package)) == [["p.one", "p.q.two"]]


def test_layers_of_nn_have_no_maths() -> None:
    """nn calls functional: no torch function, no operator on tensors."""
    found = []
    for p in (PACKAGE / "nn").glob("*.py"):
        for node in ast.walk(ast.parse(p.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "forward":
                body = [n for statement in node.body for n in ast.walk(statement)]
                found += [(p, ast.unparse(n)) for n in body if isinstance(n, ast.BinOp)]
    assert not found, named(found)


def test_no_file_above_500_lines() -> None:
    long = [(p, f"{n} lines") for p in sources(*CPP, ".py", ".cmake") if (n := len(p.read_text().splitlines())) > 500]
    assert not long, named(long)


def test_every_registered_op_has_a_fake_and_a_spec() -> None:
    import torch

    named_by = {name for s in all_specs() for name in s.registered}
    assert set(REGISTERED) == named_by, f"ops without a spec or specs of no op: {set(REGISTERED) ^ named_by}"
    for name in REGISTERED:
        op = f"neurokern::{name}"
        assert torch._C._dispatch_has_kernel_for_dispatch_key(op, "CPU"), op
        assert torch._C._dispatch_has_kernel_for_dispatch_key(op, "CUDA"), op
        assert torch._library.simple_registry.singleton.find(op).fake_impl.kernel is not None, op
        assert not torch._C._dispatch_has_kernel_for_dispatch_key(op, "CompositeImplicitAutograd"), op


def test_every_activation_is_in_the_specs() -> None:
    assert set(_C.ACTIVATIONS) - {"identity"} == {s.act for s in all_specs() if s.family == "activation" and s.act}
    assert set(_C.ACTIVATIONS) == {s.act for s in all_specs() if s.family == "matmul" and s.act}


def test_names_of_specs_are_single_and_samples_have_reasons() -> None:
    from neurokern.testing import Maker

    ids = [s.id for s in all_specs()]
    assert len(ids) == len(set(ids))
    for s in all_specs():
        reasons = [sample.why for sample in s.samples(Maker.seeded(0))]
        assert all(reasons), s.id
        assert len(reasons) == len(set(reasons)), (s.id, "two samples with one reason")
        assert any(
            t.numel() == 0 for sample in s.samples(Maker.seeded(0)) for t in sample.args if hasattr(t, "numel")
        ), f"{s.id} has no empty tensor among its samples"


class TestTheExtensionLinksNothingOfTorch:
    def tool(self, *command: str) -> str:
        if shutil.which(command[0]) is None:
            pytest.skip(f"no {command[0]} on this machine")
        return subprocess.run([*command, _C.__file__], check=True, capture_output=True, text=True).stdout

    def test_libraries(self) -> None:
        needed = re.findall(r"NEEDED.*\[(.+?)\]", self.tool("readelf", "-d"))
        allowed = re.compile(r"lib(stdc\+\+|m|gcc_s|c|gomp|dl|pthread|rt)\.so|ld-linux")
        assert needed
        assert not [n for n in needed if not allowed.match(n)], needed

    def test_symbols(self) -> None:
        undefined = self.tool("nm", "-D", "-C", "--undefined-only").splitlines()
        assert undefined
        bad = [s for s in undefined if re.search(r"\b(c10|at|torch|caffe2|THP\w*)::|\bTHP|\bcu[A-Z]\w+|\bcuda\w+", s)]
        assert not bad, bad
