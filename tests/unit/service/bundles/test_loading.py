"""A bundle is believed only after its checksums, its contract and its predictions hold."""

import io

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from features.contract import SLOT, Contract, Feature, fingerprint
from service.bundles.loading import load_bundle
from service.bundles.manifest import MANIFEST_FILE, MODEL_FILE, WARMUP_FILE
from service.errors import BundleRefused

CONTRACT = Contract(
    (
        Feature("age", "number", "profile", max_age=86400.0),
        Feature("device", "category", "context", categories=("mobile", "desktop")),
    )
)


def fits_rows_of(rows: int) -> bytes:
    """A model that adds weights of so many rows: no other number of rows will do."""
    return one_node("Add", helper.make_tensor("weights", TensorProto.FLOAT, [rows, 3], [0.0] * 3 * rows))


def as_many_rates_as_inputs() -> bytes:
    return one_node("Add", helper.make_tensor("weights", TensorProto.FLOAT, [1], [0.0]))


def one_node(operator: str, weights: TensorProto) -> bytes:
    graph = helper.make_graph(
        [helper.make_node(operator, ["inputs", "weights"], ["rate"])], "one",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("rate", TensorProto.FLOAT, None)], initializer=[weights],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_a_right_bundle_loads_and_scores_every_action(bundles, tiny):
    """Two customers, two actions: the sigmoid of age + device code + price."""
    bundle = load_bundle(bundles.write(), CONTRACT)
    scorer = bundle.scorer([tiny.action("cheap", attributes={"price": 1.0}), tiny.action("dear", attributes={"price": 3.0})])
    rates = scorer.score(np.array([[0.0, 1.0], [-2.0, 0.0]], np.float32))
    np.testing.assert_allclose(rates, 1 / (1 + np.exp(-np.array([[2.0, 4.0], [-1.0, 1.0]]))), atol=1e-6)


def test_a_batch_larger_than_one_run_scores_the_same(bundles, tiny):
    """The expanded matrix is cut into runs; nobody may notice."""
    scorer = load_bundle(bundles.write(), CONTRACT).scorer(
        [tiny.action(f"a{i}", attributes={"price": float(i)}) for i in range(700)]
    )
    requests = np.random.default_rng(5).normal(size=(200, 2)).astype(np.float32)
    whole = scorer.score(requests)
    assert whole.shape == (200, 700)
    np.testing.assert_array_equal(whole[150:151], scorer.score(requests[150:151]))


def test_an_empty_batch_scores_nothing(bundles, tiny):
    """No rows in, no rows out, and still one column per action."""
    scorer = load_bundle(bundles.write(), CONTRACT).scorer([tiny.action("a"), tiny.action("b")])
    assert scorer.score(np.zeros((0, 2), np.float32)).shape == (0, 2)


@pytest.mark.parametrize("name", [MODEL_FILE, WARMUP_FILE])
def test_a_changed_file_is_refused_by_its_checksum(bundles, name):
    """One byte is enough."""
    folder = bundles.write()
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleRefused, match=f"Expected checksum .* at `tiny-1/{name}`"):
        load_bundle(folder, CONTRACT)


@pytest.mark.parametrize("name", [MODEL_FILE, WARMUP_FILE, MANIFEST_FILE])
def test_a_missing_file_is_named(bundles, name):
    """The message says which."""
    folder = bundles.write()
    (folder / name).unlink()
    with pytest.raises(BundleRefused, match=name if name != MANIFEST_FILE else "Expected a manifest"):
        load_bundle(folder, CONTRACT)


@pytest.mark.parametrize("name", [MODEL_FILE, WARMUP_FILE, MANIFEST_FILE])
def test_a_file_that_cannot_be_read_is_named(bundles, name):
    """A folder stands for one that the operating system refuses."""
    folder = bundles.write()
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(BundleRefused, match=f"Is a directory.*{name}"):
        load_bundle(folder, CONTRACT)


def test_a_manifest_of_bytes_that_are_no_text_is_refused(bundles):
    """They cannot be decoded, which is another error than a wrong field."""
    folder = bundles.write()
    (folder / MANIFEST_FILE).write_bytes(b'{"bundle_id": "\xff"}')
    with pytest.raises(BundleRefused, match=r"Manifest not understood: .*utf-8"):
        load_bundle(folder, CONTRACT)


def test_a_manifest_that_is_no_manifest_is_refused_with_the_path_of_the_field(bundles):
    """Expected, found, where."""
    folder = bundles.write()
    (folder / MANIFEST_FILE).write_text('{"bundle_id": 3}')
    with pytest.raises(BundleRefused, match=r"Expected `str`, got `int` - at `\$.bundle_id`"):
        load_bundle(folder, CONTRACT)


def test_a_fingerprint_that_does_not_fit_the_inputs_is_refused(bundles):
    """The manifest contradicts itself."""
    with pytest.raises(BundleRefused, match="Expected contract fingerprint 0123456789abcdef"):
        load_bundle(bundles.write(contract_fingerprint="0123456789abcdef"), CONTRACT)


@pytest.mark.parametrize(
    "served",
    [
        Feature("age", "number", "profile", default=40.0, max_age=86400.0),
        Feature("age", "category", "profile", max_age=86400.0, categories=("young", "old")),
        Feature("tenure", "number", "profile", max_age=86400.0),
    ],
)
def test_an_input_that_the_service_reads_otherwise_is_refused(bundles, served):
    """Another default, another type or another name: the model did not learn from these values."""
    with pytest.raises(BundleRefused, match=r"inputs\[0\]"):
        load_bundle(bundles.write(), Contract((served, *CONTRACT.features[1:])))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ([1, 2, Feature("size", "number", "match", matches="customer.region")], "category among the inputs, found `customer.reg"),
        ([1, 2, Feature("size", "number", "match")], r"Expected `matches` of an input of the origin.*inputs\[2\]"),
        ([1, 2, Feature("size", "number", "action", matches="context.device")], "`match` or `pair`, and of no other"),
        ([1, Feature("size", "number", "match", matches="context.device"), 2], "found `request, match, action`"),
        ([1, SLOT, 2], "found `request, slot, action`"),
        ([1, 2, SLOT, SLOT], "Expected one slot, found 2"),
        ([1, 2, Feature("slot", "number", "slot")], r"Expected a slot that is a number, by default the first.*inputs\[2\]"),
    ],
)  # fmt: skip
def test_matches_and_slots_that_cannot_be_made_are_refused(bundles, changed, problem):
    """What is compared must be among the inputs, and stand where scorers look for it."""
    inputs = tuple(bundles.inputs[one] if isinstance(one, int) else one for one in changed)
    with pytest.raises(BundleRefused, match=problem):
        load_bundle(bundles.write(inputs=inputs, contract_fingerprint=fingerprint(inputs)), CONTRACT)


def test_another_maximum_age_is_no_reason_to_refuse(bundles):
    """How long a value stays fresh is the service's business."""
    younger = msgspec.structs.replace(CONTRACT.features[0], max_age=60.0)
    assert load_bundle(bundles.write(), Contract((younger, *CONTRACT.features[1:]))).manifest.bundle_id == "tiny-1"


def test_predictions_that_differ_from_the_trainers_are_refused(bundles):
    """Off by 2e-6, where 1e-6 is the limit."""
    with pytest.raises(BundleRefused, match="Parity"):
        load_bundle(bundles.write(rates_shift=2e-6), CONTRACT)


@pytest.mark.parametrize("rates", [np.array([np.nan, 0.5]), np.zeros(0)])
def test_warm_up_rows_that_prove_nothing_are_refused(bundles, rates):
    """Not a number, or no rows at all."""
    folder = bundles.write()
    data = io.BytesIO()
    np.savez(data, inputs=np.zeros((len(rates), 3), np.float32), rates=rates)
    (folder / WARMUP_FILE).write_bytes(data.getvalue())
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(bundles.manifest(folder, "tiny-1")))
    with pytest.raises(BundleRefused, match=r"Parity|warm-up rows"):
        load_bundle(folder, CONTRACT)


@pytest.mark.parametrize("model", [b"not a model", b""])
def test_bytes_that_are_no_model_are_refused(bundles, model):
    """Also when their checksum is right."""
    folder = bundles.write()
    (folder / MODEL_FILE).write_bytes(model)
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(bundles.manifest(folder, "tiny-1")))
    with pytest.raises(BundleRefused, match="Expected an ONNX model"):
        load_bundle(folder, CONTRACT)


def test_a_model_that_pulls_in_another_file_is_refused(bundles, tmp_path):
    """Loaded from bytes, external data has no folder to come from."""
    secret = tmp_path / "made" / "secret.bin"
    secret.parent.mkdir()
    secret.write_bytes(np.ones(3, np.float32).tobytes())
    weights = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[3, 1], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="../secret.bin")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["inputs", "weights"], ["rate"])], "external",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("rate", TensorProto.FLOAT, [None, 1])], initializer=[weights],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(BundleRefused, match="Expected an ONNX model"):
        load_bundle(bundles.write(model=onnx.ModelProto.SerializeToString(model)), CONTRACT)


def test_a_model_that_loads_and_cannot_be_run_is_refused(bundles):
    """Its weights fit five rows, the warm-up rows are two."""
    with pytest.raises(BundleRefused, match="Expected rates of the warm-up rows from the model, got"):
        load_bundle(bundles.write(model=fits_rows_of(5)), CONTRACT)


def test_a_model_with_more_than_one_rate_a_row_is_refused(bundles):
    """Six rates of two rows are no rates."""
    with pytest.raises(BundleRefused, match=r"Parity: expected rates of shape \(2,\), found \(6,\)"):
        load_bundle(bundles.write(model=as_many_rates_as_inputs()), CONTRACT)


def test_a_model_with_other_names_or_widths_is_refused(bundles):
    """The inputs of the file are those of the manifest, no more, no fewer."""
    inputs = (*bundles.inputs, Feature("size", "number", "action"))
    with pytest.raises(BundleRefused, match="Expected input `inputs` with 4 columns"):
        load_bundle(bundles.write(inputs=inputs, contract_fingerprint=fingerprint(inputs)), CONTRACT)
