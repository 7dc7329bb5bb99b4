"""Every exception of a server's client becomes an error of ours, or is left alone on purpose.

`client_errors.txt` lists what each exception becomes, also where only a base class is in the
client's table: a new release that adds an exception fails here until someone has decided.
"""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest
from aiokafka.errors import KafkaConnectionError, RecordTooLargeError
from huggingface_hub.errors import HFValidationError
from tritonclient.utils import InferenceServerException
from weaviate.exceptions import WeaviateBaseError, WeaviateConnectionError

from adapters.embedder import triton_errors
from adapters.errors import AdapterError, ErrorTable, Rejected, TooSlow, Unavailable, translated
from adapters.index import weaviate_errors
from adapters.log import kafka_errors
from models import hub_errors
from tests.architecture.test_imports import PACKAGES, imports, modules, relative

LIST: Final = Path(__file__).with_name("client_errors.txt")

TABLES: Final[dict[str, tuple[str, ErrorTable]]] = {
    "aiokafka": ("aiokafka", kafka_errors.TABLE),
    "weaviate": ("weaviate-client", weaviate_errors.TABLE),
    "tritonclient": ("tritonclient", triton_errors.TABLE),
    "huggingface_hub": ("huggingface_hub", hub_errors.TABLE),
}
"""Package -> its distribution, and the table of its errors."""

UNUSABLE: Final = {
    "tritonclient.grpc",
    "tritonclient.utils.cuda_shared_memory",
    "weaviate.agents",
}
"""Modules that cannot be imported without further packages, which we do not install."""

NOT_USED: Final = "raised only by parts of the client that we do not use"
LEFT: Final = {
    "aiokafka.errors.ConsumerStoppedError": "reading from a consumer after stopping it is a bug",
    "aiokafka.errors.IllegalOperation": "subscribing and assigning at once is a bug",
    "weaviate.exceptions.WeaviateProtobufIncompatibility": "raised at import, by a wrong install",
    "weaviate.exceptions._BatchStreamShutdownError": NOT_USED,
    "tritonclient.utils.shared_memory.SharedMemoryException": NOT_USED,
    **{
        f"huggingface_hub.{name}": NOT_USED
        for name in (
            "_bucket_live_follow.BucketEventsUnavailable",
            "cli.extensions._GitHubRateLimitError",
            "errors.CLIError",
            "errors.CLIExtensionInstallError",
            "errors.CacheNotFound",
            "errors.CachedRepoTreeNotFoundError",
            "errors.ConfirmationError",
            "errors.CorruptedCacheException",
            "errors.DDUFCorruptedFileError",
            "errors.DDUFError",
            "errors.DDUFExportError",
            "errors.DDUFInvalidEntryNameError",
            "errors.DeviceCodeError",
            "errors.EntryNotFoundError",
            "errors.FileDuplicationError",
            "errors.InferenceEndpointError",
            "errors.NotASafetensorsRepoError",
            "errors.OIDCError",
            "errors.RevisionResolutionError",
            "errors.SafetensorsParsingError",
            "errors.SandboxCommandError",
            "errors.SandboxError",
            "errors.StrictDataclassClassValidationError",
            "errors.StrictDataclassDefinitionError",
            "errors.StrictDataclassError",
            "errors.StrictDataclassFieldValidationError",
        )
    },
}
"""Exceptions that pass through -> why."""

WRAPPERS: Final = {
    "adapters/embedder/triton_errors.py",
    "adapters/index/weaviate_errors.py",
    "adapters/log/kafka_errors.py",
    "models/hub_errors.py",
}
BASES: Final = {
    "aiokafka.errors.KafkaError",
    "huggingface_hub.errors.HfHubHTTPError",
    "tritonclient.utils.InferenceServerException",
    "weaviate.exceptions.WeaviateBaseError",
}
FAILS_ITS_OWN: Final = ("adapters/log/kafka_producer.py", "aiokafka.errors.KafkaError")
"""Ends what waits for an abandoned producer with such an error, and catches none."""


@cache
def exceptions(package: str) -> dict[str, type[Exception]]:
    """Full name -> exception, of all modules of a package."""
    refused = set[str]()
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, f"{package}.", onerror=refused.add):
        try:
            importlib.import_module(module.name)
        except (ImportError, RuntimeError, WeaviateBaseError):
            refused.add(module.name)
    assert refused <= UNUSABLE
    return {
        f"{each.__module__}.{each.__qualname__}": each
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == package
        for each in list(vars(module).values())
        if inspect.isclass(each)
        and issubclass(each, Exception)
        and each.__module__.partition(".")[0] == package
    }


def outcome(error: type[Exception], table: ErrorTable) -> str | None:
    """The table's entry: the error's name, or that of the function that chooses it."""
    entry = next((table[each] for each in error.__mro__ if each in table), None)
    return entry.__name__.strip("_") if entry is not None else None


def outcomes() -> Iterator[tuple[str, str | None]]:
    for package, (_, table) in TABLES.items():
        for name, error in exceptions(package).items():
            yield name, outcome(error, table)


@pytest.mark.slow
@pytest.mark.parametrize("package", TABLES)
def test_every_exception_is_mapped_or_listed_as_unmapped(package: str) -> None:
    distribution, table = TABLES[package]
    found = exceptions(package)
    assert found
    unmapped = {name for name, error in found.items() if outcome(error, table) is None}
    assert sorted(unmapped - LEFT.keys()) == [], (
        f"{distribution} {version(distribution)}: add these to the client's table, or to LEFT"
    )


@pytest.mark.slow
def test_every_unmapped_exception_exists_and_is_in_no_table() -> None:
    left = {name for name, becomes in outcomes() if becomes is None}
    assert left == LEFT.keys()


def test_the_outcome_of_each_exception_is_listed() -> None:
    listed = set(LIST.read_text(encoding="utf-8").splitlines())
    found = {f"{name} {becomes}" for name, becomes in outcomes() if becomes is not None}
    assert sorted(listed - found) == [], f"these are gone: remove their lines from {LIST.name}"
    assert sorted(found - listed) == [], f"is this right? Then add these lines to {LIST.name}"


@pytest.mark.slow
def test_each_client_is_wrapped_in_one_way() -> None:
    """Nothing else translates errors, or catches those of a client by their base class."""
    wrong = {
        (relative(path), name)
        for package in PACKAGES
        for path in modules(package)
        if relative(path) not in WRAPPERS
        for name in imports(path)
        if name == "adapters.errors.translated" or name in BASES
    }
    assert wrong == {FAILS_ITS_OWN}


def raised(error: Exception, table: ErrorTable) -> str:
    """Class and message of what comes out."""
    with pytest.raises(Exception) as found, translated("do it", table):  # noqa: PT011
        raise error
    return f"{type(found.value).__name__}: {found.value}"


@pytest.mark.parametrize(
    ("error", "table", "expected"),
    [
        (KafkaConnectionError("gone"), kafka_errors.TABLE, "Unavailable: do it: KafkaConnec"),
        (RecordTooLargeError("9 MB"), kafka_errors.TABLE, "Rejected: do it: RecordTooLarge"),
        (TimeoutError(), kafka_errors.TABLE, "Unavailable: do it: TimeoutError"),
        (WeaviateConnectionError("gone"), weaviate_errors.TABLE, "Unavailable: do it: "),
        (HFValidationError("a b"), hub_errors.TABLE, "Rejected: do it: a b"),
        (TooSlow("it is alive"), triton_errors.TABLE, "TooSlow: it is alive"),
        (KeyError("bug"), kafka_errors.TABLE, "KeyError: 'bug'"),
    ],
)
def test_the_nearest_base_class_in_the_table_counts(
    error: Exception, table: ErrorTable, expected: str
) -> None:
    assert raised(error, table).startswith(expected)


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        ("400", "unexpected shape", Rejected),
        ("400", "Request for unknown model: 'x' is not found", Unavailable),
        ("400", "Stub process is not healthy", Unavailable),
        ("503", "unexpected shape", Unavailable),
        (None, "connection lost", Unavailable),
    ],
)
def test_triton_s_status_and_message_decide(
    status: str | None, message: str, expected: type[AdapterError]
) -> None:
    with pytest.raises(expected) as found, triton_errors.triton_errors("do it"):
        raise InferenceServerException(message, status=status)
    assert str(found.value) == f"do it: {message}"
    with pytest.raises(Rejected), triton_errors.triton_errors("do it", answered=Rejected):
        raise InferenceServerException(message, status=status)
