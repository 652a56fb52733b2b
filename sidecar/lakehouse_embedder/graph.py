"""The graph of a BERT encoder with mean pooling, over the weights' own names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lakehouse_embedder import onnx
from lakehouse_embedder.weights import Weights

HIDDEN: Final = 384
HEADS: Final = 12
LAYERS: Final = 6
_EPSILON: Final = 1e-12
_FUSED: Final = "com.microsoft"


def minilm(weights: Weights) -> bytes:
    """``ids`` and ``mask`` (texts, tokens) int32, ``shares`` (texts, 1, tokens) float32: what each
    token counts in its text's mean. Answers ``pooled`` (texts, 1, 384), not normalised."""
    nodes = [*_embeddings(), *(one for layer in range(LAYERS) for one in _layer(layer))]
    last = f"hidden.{LAYERS}"
    nodes += [
        onnx.node("Reshape", [last, "as_input"], ["states"]),
        onnx.node("MatMul", ["shares", "states"], ["pooled"]),
    ]
    file = weights.path.name
    tensors = [
        onnx.external(name, one.shape, file, one.offset, one.size)
        for name, one in weights.tensors.items()
        if not name.startswith("pooler.")
    ]
    tensors += [onnx.constant("flat", [-1, HIDDEN]), onnx.constant("width", [HIDDEN])]
    places = ("texts", "tokens")
    return onnx.model(
        nodes,
        tensors,
        [
            onnx.value("ids", onnx.INT32, places),
            onnx.value("types", onnx.INT32, places),
            onnx.value("mask", onnx.INT32, places),
            onnx.value("shares", onnx.FLOAT, ("texts", 1, "tokens")),
        ],
        [onnx.value("pooled", onnx.FLOAT, ("texts", 1, HIDDEN))],
    )


def _embeddings() -> Iterator[bytes]:
    tables = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
    norm = [f"embeddings.LayerNorm.{part}" for part in ("weight", "bias")]
    yield onnx.node(
        "EmbedLayerNormalization",
        ["ids", "types", *tables, *norm, "mask"],
        ["embedded", "lengths"],
        _FUSED,
        epsilon=_EPSILON,
    )
    yield onnx.node("Reshape", ["embedded", "flat"], ["hidden.0"])
    yield onnx.node("Shape", ["ids"], ["places"])
    yield onnx.node("Concat", ["places", "width"], ["as_input"], axis=0)


def _layer(number: int) -> Iterator[bytes]:
    """``hidden.<n>`` (texts * tokens, 384) to ``hidden.<n + 1>``."""
    here = f"encoder.layer.{number}"
    hidden, after = f"hidden.{number}", f"hidden.{number + 1}"

    def linear(source: str, name: str, out: str) -> bytes:
        weights = [f"{here}.{name}.weight", f"{here}.{name}.bias"]
        return onnx.node("Gemm", [source, *weights], [out], transB=1)

    def add_and_norm(source: str, skip: str, name: str, out: str) -> bytes:
        norm = [f"{here}.{name}.weight", f"{here}.{name}.bias"]
        return onnx.node(
            "SkipLayerNormalization", [source, skip, *norm], [out], _FUSED, epsilon=_EPSILON
        )

    heads = []
    for part in ("query", "key", "value"):
        flat, shaped = f"{part}.{number}", f"{part}.shaped.{number}"
        yield linear(hidden, f"attention.self.{part}", flat)
        yield onnx.node("Reshape", [flat, "as_input"], [shaped])
        heads.append(shaped)
    seen, seen_flat = f"seen.{number}", f"seen.flat.{number}"
    yield onnx.node("MultiHeadAttention", [*heads, "", "mask"], [seen], _FUSED, num_heads=HEADS)
    yield onnx.node("Reshape", [seen, "flat"], [seen_flat])
    yield linear(seen_flat, "attention.output.dense", f"attended.{number}")
    middle = f"middle.{number}"
    yield add_and_norm(f"attended.{number}", hidden, "attention.output.LayerNorm", middle)
    yield linear(middle, "intermediate.dense", f"wide.{number}")
    yield onnx.node("Gelu", [f"wide.{number}"], [f"bent.{number}"], _FUSED)
    yield linear(f"bent.{number}", "output.dense", f"narrow.{number}")
    yield add_and_norm(f"narrow.{number}", middle, "output.LayerNorm", after)
