"""The classifier in int8."""

import tempfile
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from tools.lite_model.calibration import Planes
from tools.lite_model.graph import IR_VERSION

# The stem and the first block (depthwise, project) stay FP32. They see the raw picture, where
# uint8 steps hurt most: as int8 they take the embeddings' mean cosine to FP32 from .987 to .971,
# and save a tenth of the time.
FLOAT_CONVOLUTIONS = 3


def quantize(classifier: ModelProto, photographs: Path, *, reduce_range: bool = True) -> ModelProto:
    """Returns the classifier with int8 weights (per channel) and uint8 activations.

    Args:
        classifier: the FP32 classifier.
        photographs: folder of scikit-image's pictures, for the activations' ranges.
        reduce_range: 7 bits for weights. Processors without VNNI add pairs of uint8 x int8
            products in 16 bits and saturate; with 7 bits that cannot happen, and every
            processor computes the same.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, packed = (Path(folder) / f"{i}.onnx" for i in range(3))
        onnx.save(classifier, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            packed,
            Planes(photographs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=_first_nodes(onnx.load(prepared)),
        )
        model = onnx.load(packed)
    model.ir_version = IR_VERSION
    # The quantizer declares every operator set it knows; the graph uses the standard one.
    standard = [each for each in model.opset_import if each.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    return model


def _first_nodes(model: ModelProto) -> list[str]:
    """Returns the names of the nodes up to the last convolution that stays FP32."""
    convolutions = [i for i, node in enumerate(model.graph.node) if node.op_type == "Conv"]
    last = convolutions[FLOAT_CONVOLUTIONS - 1]
    return [node.name for node in model.graph.node[: last + 1]]
