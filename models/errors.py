"""Errors about models; their messages are shown at the terminal.

ModelError
├── StoreError        the store has no such model, or cannot add one under this name
├── InvalidLayout     a folder does not have the layout of a model
├── InvalidGraph      an ONNX file is not an encoder
├── InvalidCatalogue  the catalogue of known models cannot be read
├── NotNative         Triton's native backend cannot run the model as requested
├── RegistryBusy      another command is changing which models are current
├── ServingFailed     a model could not be loaded, or its indexers not started or stopped
└── SwitchRefused     a switch or a retirement is not possible; nothing was changed

An error is defined in the module that raises it, or here if several modules do. This module imports
nothing, because every command imports it.
"""


class ModelError(Exception):
    """Base of all errors that `models` raises; the message says what is wrong and what to do."""


class RegistryBusy(ModelError):
    """Another process holds the registry's lock for too long."""


class ServingFailed(ModelError):
    """A model could not be loaded, its indexers did not stop, or no stack is running."""


class SwitchRefused(ModelError):
    """Searches cannot be switched to this model, or it cannot be retired."""
