"""Makes the bundled model `lite` from packages. Run as ``python -m tools.lite_model``.

Nothing of this runs in the product: it documents, and can repeat, how the two ONNX files
below ``triton_models/lite_*`` came to be. Its libraries are in ``requirements.txt`` beside
it and belong in a virtual environment of their own.
"""
