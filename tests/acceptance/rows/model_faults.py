"""Row 6: real ONNX models that fail for some customers: with NaN, an exception, a second's sleep, the wrong shape."""

import asyncio
import hashlib
import io
import itertools
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from service.bundles.manifest import MANIFEST_FILE, MODEL_FILE, WARMUP_FILE, Manifest
from service.registry import Registry
from tests.acceptance.open_loop import Call, OpenLoop, call
from tests.acceptance.prepared import prepared_home
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.rows.footprint import placement_of, serving

DEVICE, TRIGGER = "context.device", "tablet"  # a customer with this device is the one that the model fails for
PER_SECOND, SECONDS = 40.0, 5.0
MOST_BAD = 20
SLEEP_STEPS, SLEEP_SIZE = 600, 384  # matrix products that take a second or more on any machine here

Nodes = list[onnx.NodeProto]


def measure(context: Context) -> Measured:
    home = prepared_home(context)
    registry = Registry(home / "registry")
    good = registry.current().champion or ""
    told, holds = list[str](), True
    with serving(home, context) as (_, url, _ready):
        for name in FAULTS:
            what, fits = tried(home, good, name, url)
            told.append(what)
            holds &= fits
            _serve(registry, good, url)
    return Measured("; ".join(told), holds)


def tried(home: Path, good: str, name: str, url: str, *, seconds: float = SECONDS) -> Measured:
    """A server that is given a bundle with one of these faults, while it is asked."""
    _serve(Registry(home / "registry"), spoiled(home, good, name, FAULTS[name]), url)
    answers = asyncio.run(_load(url, placement_of(home), seconds))
    failed = [a for a in answers if a.status != httpx.codes.OK]
    problem = httpx.get(f"{url}/ready").json().get("problem") or ""
    counted = re.search(r"given up after (\d+) bad calls", problem)
    calls = int(counted[1]) if counted else None
    last = answers[-1].json() if answers[-1].status == httpx.codes.OK else {}
    without = last.get("versions", {}).get("bundle") is None and "no_model" in last.get("degraded", ())
    took = re.search(r"after ([\d.]+) s$", problem)
    slept = f" of {took[1]} s" if took else ""
    told = f"{name}: {len(failed)} of {len(answers)} failed, unloaded after {calls} bad calls{slept}"
    return Measured(told, not failed and without and calls is not None and calls <= MOST_BAD)


def _serve(registry: Registry, bundle: str, url: str) -> None:
    """Let a bundle serve, and wait until it does."""
    registry.promote(bundle, at="2026-01-01T00:00:00Z", why="acceptance: faults of models")
    give_up = time.monotonic() + 10.0
    while httpx.get(f"{url}/ready").json().get("bundle") != bundle and time.monotonic() < give_up:
        time.sleep(0.1)


async def _load(url: str, placement: str, seconds: float) -> list[Any]:
    address = httpx.URL(url)
    loop = OpenLoop(address.host, address.port or 80)
    try:
        return await loop.run(_asks(placement), PER_SECOND, seconds)
    finally:
        loop.close()


def _asks(placement: str) -> Iterator[Call]:
    """Every second customer has the device."""
    for number in itertools.count():
        context = {"channel": "web", "device": TRIGGER if number % 2 else "mobile"}
        yield call("/recommend", {"customer_id": f"c{number % 500}", "placement": placement, "context": context})


def spoiled(home: Path, good: str, name: str, fault: Callable[[Nodes, list[onnx.TensorProto]], None]) -> str:
    """A bundle like a good one, which fails where the trigger is among its inputs. Its warm-up rows do not show it."""
    source = home / "registry" / "bundles" / good
    manifest = msgspec.json.decode((source / MANIFEST_FILE).read_bytes(), type=Manifest)
    column = next(n for n, feature in enumerate(manifest.inputs) if feature.key == DEVICE)
    code = float(manifest.inputs[column].categories.index(TRIGGER))
    folder = home / f"spoiled-{list(FAULTS).index(name)}"
    folder.mkdir()
    (folder / MODEL_FILE).write_bytes(_spoiled_model((source / MODEL_FILE).read_bytes(), column, code, fault))
    with np.load(source / WARMUP_FILE) as rows:
        kept = rows["inputs"][:, column] != code
        warmup = io.BytesIO()
        np.savez(warmup, inputs=rows["inputs"][kept], rates=rows["rates"][kept])
    (folder / WARMUP_FILE).write_bytes(warmup.getvalue())
    files = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in (MODEL_FILE, WARMUP_FILE)}
    bundle = f"{good}-{folder.name}"
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, bundle_id=bundle, files=files)))
    Registry(home / "registry").add_bundle(folder, bundle)
    return bundle


def _spoiled_model(data: bytes, column: int, code: float, fault: Callable[[Nodes, list[onnx.TensorProto]], None]) -> bytes:
    """`plain` (rows,) is what the model says, `bad` (rows,) where it fails, `any` (1,) 1 where it does anywhere."""
    model = onnx.load_from_string(data)
    for node in model.graph.node:
        for position, output in enumerate(node.output):
            if output == "rate":
                node.output[position] = "told"
    constants = [
        helper.make_tensor("column", TensorProto.INT64, [], [column]), helper.make_tensor("code", TensorProto.FLOAT, [], [code]),
        helper.make_tensor("flat", TensorProto.INT64, [1], [-1]), helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
    ]  # fmt: skip
    nodes = [
        helper.make_node("Reshape", ["told", "flat"], ["plain"]),
        helper.make_node("Gather", ["inputs", "column"], ["device"], axis=1),
        helper.make_node("Equal", ["device", "code"], ["bad"]),
        helper.make_node("Cast", ["bad"], ["bad_number"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["bad_number"], ["any"], keepdims=1),
    ]
    fault(nodes, constants)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("rate", TensorProto.FLOAT, None))
    return bytes(model.SerializeToString())


def _nan(nodes: Nodes, constants: list[onnx.TensorProto]) -> None:
    constants.append(helper.make_tensor("nan", TensorProto.FLOAT, [], [float("nan")]))
    nodes.append(helper.make_node("Where", ["bad", "nan", "plain"], ["rate"]))


def _raises(nodes: Nodes, constants: list[onnx.TensorProto]) -> None:
    """Looks up a row that there is not."""
    constants.append(helper.make_tensor("far", TensorProto.INT64, [], [10**9]))
    nodes.append(helper.make_node("Mul", ["any", "far"], ["place"]))
    nodes.append(helper.make_node("Gather", ["plain", "place"], ["found"], axis=0))
    _plus_nothing(nodes, "found")


def _wrong_shape(nodes: Nodes, constants: list[onnx.TensorProto]) -> None:
    """One row too few."""
    constants.append(helper.make_tensor("start", TensorProto.INT64, [1], [0]))
    nodes.append(helper.make_node("Size", ["plain"], ["rows"]))
    nodes.append(helper.make_node("Sub", ["rows", "any"], ["end"]))
    nodes.append(helper.make_node("Slice", ["plain", "start", "end"], ["rate"]))


def _sleeps(nodes: Nodes, constants: list[onnx.TensorProto]) -> None:
    """Multiplies matrices for a second."""
    matrix = helper.make_tensor_value_info("next", TensorProto.FLOAT, [SLEEP_SIZE, SLEEP_SIZE])
    body = helper.make_graph(
        [helper.make_node("MatMul", ["now", "weights"], ["next"]), helper.make_node("Identity", ["going"], ["on"])], "sleep",
        [helper.make_tensor_value_info("step", TensorProto.INT64, []),
         helper.make_tensor_value_info("going", TensorProto.BOOL, []),
         helper.make_tensor_value_info("now", TensorProto.FLOAT, [SLEEP_SIZE, SLEEP_SIZE])],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), matrix],
    )  # fmt: skip
    eye = np.eye(SLEEP_SIZE, dtype=np.float32)
    constants.extend(onnx.numpy_helper.from_array(eye, name) for name in ("weights", "begin"))
    constants.append(helper.make_tensor("steps", TensorProto.INT64, [], [SLEEP_STEPS]))
    constants.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    nodes.append(helper.make_node("Mul", ["any", "steps"], ["how_often"]))
    nodes.append(helper.make_node("Loop", ["how_often", "yes", "begin"], ["slept"], body=body))
    nodes.append(helper.make_node("ReduceSum", ["slept"], ["sum"], keepdims=0))
    _plus_nothing(nodes, "sum")


def _plus_nothing(nodes: Nodes, name: str) -> None:
    """The rates as they are, once something else was worked out."""
    nodes.append(helper.make_node("Mul", [name, "zero"], ["nothing"]))
    nodes.append(helper.make_node("Add", ["plain", "nothing"], ["rate"]))


FAULTS = {"NaN": _nan, "an exception": _raises, "a second's sleep": _sleeps, "the wrong shape": _wrong_shape}

ROW = Row(
    6,
    "a model gives NaN, raises, sleeps a second, gives the wrong shape",
    f"no answer but 200; unloaded after at most {MOST_BAD} bad calls",
    measure,
)
