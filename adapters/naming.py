"""Names that the adapters derive: object ids, collections, Triton models."""

import re
import uuid
from typing import Final

from adapters.embedder.spec import ModelSpec

# Namespaces object ids. Never change it: every stored id depends on it.
IMAGE_NAMESPACE: Final = uuid.UUID("5b0f6a0e-8f0c-5f38-9f0b-6d8f1c9e2a47")

ACTIVE_ALIAS: Final = "Images"
COLLECTION_PREFIX: Final = "Images_"

ANALYTICS_GROUP: Final = "analytics"
"""The consumer group that writes the event lake, unless a setting names another."""


MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_model_name(value: str) -> str:
    """The value, if a model may have this name.

    Raises:
        ValueError: it may not.
    """
    if not MODEL_NAME.fullmatch(value):
        raise ValueError("must be a name of letters, digits, dots, hyphens and underscores")
    return value


def object_id(image_id: str) -> uuid.UUID:
    """The id an image's object has in every collection: UUIDv5 (RFC 9562) of its image id."""
    return uuid.uuid5(IMAGE_NAMESPACE, image_id)


def collection_name(spec: ModelSpec) -> str:
    """`Images_<model>_<version>`, in the characters that Weaviate allows for a collection."""
    model = re.sub(r"[^0-9A-Za-z]+", "_", spec.name)
    return f"{COLLECTION_PREFIX}{model}_{spec.version}"


def indexing_group(collection: str, incarnation: str) -> str:
    """The consumer group that fills a collection; `incarnation` as in `Collection`."""
    suffix = f"-{incarnation}" if incarnation else ""
    return f"indexing-{collection}{suffix}"


def image_model(model_name: str) -> str:
    """The Triton model that embeds images."""
    return f"{model_name}_image"


def text_model(model_name: str) -> str:
    """The Triton model that embeds texts."""
    return f"{model_name}_text"
