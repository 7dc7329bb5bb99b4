"""What can be wrong with a model, in words for the person at the terminal.

ModelError
├── StoreError        the store has no such model, or cannot take one of this name
├── InvalidLayout     a folder does not have the layout of a model
├── InvalidGraph      an ONNX file is not an encoder
├── InvalidCatalogue  the catalogue of known models cannot be read
├── NotNative         Triton's native backend cannot run the model as asked
├── RegistryBusy      another command is changing which models are current
├── ServingFailed     the server of models does not do what was asked
└── SwitchRefused     searches stay as they are

The module that raises one defines it; those of several modules are here. Nothing else is imported,
as every command knows these.
"""


class ModelError(Exception):
    """Base of all errors that `models` raises; the message says what is wrong and what to do."""


class RegistryBusy(ModelError):
    """Another process has been changing the registry for too long."""


class ServingFailed(ModelError):
    """A model could not be loaded, or the indexers of one did not stop, or nothing is running."""


class SwitchRefused(ModelError):
    """Searches cannot go to this model, or it cannot be retired."""
