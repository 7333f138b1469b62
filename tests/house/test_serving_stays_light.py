import json
import subprocess
import sys

HEAVY = ("feast", "lightgbm", "pandas", "duckdb", "pyarrow", "onnx")


def loaded_by(root, modules):
    """Names of the top-level packages in memory after a fresh interpreter has imported the modules."""
    code = f"import importlib, json, sys\nfor m in {modules!r}: importlib.import_module(m)\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_importing_every_module_of_the_service_loads_no_trainer_and_no_feature_platform(root):
    """The serving image does not contain these packages, so no module of the service may need one at import."""
    modules = [".".join(p.relative_to(root).with_suffix("").parts) for p in sorted((root / "service").rglob("*.py"))]
    modules = [name.removesuffix(".__init__") for name in modules]
    assert "service.app" in modules
    assert loaded_by(root, modules).isdisjoint(HEAVY)


def test_a_heavy_import_would_be_seen(root):
    """The measurement sees a package that is imported."""
    assert "pyarrow" in loaded_by(root, ["pyarrow"])
