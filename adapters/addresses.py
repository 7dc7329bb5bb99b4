"""Checks of the addresses in settings: hosts, HTTP addresses, brokers, folders and buckets.

No message repeats the address, because it may contain a password.
"""

import re
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

_HOST_NAME: Final = re.compile(r"[\w-]+(\.[\w-]+)*\.?")
_PROTOCOL: Final = re.compile(r"(?:^|::)([A-Za-z0-9+.-]*)://")


def check_host(value: str) -> str:
    """The value, if it is a host name or an IP address.

    Raises:
        ValueError: it is neither.
    """
    if not _is_host(value):
        raise ValueError("must be a host name or an IP address")
    return value


def check_http_address(value: str) -> str:
    """The value, if it is an HTTP address with a host and, if any, a valid port.

    Raises:
        ValueError: it is not.
    """
    if not _is_http(value):
        raise ValueError("must be an address such as http://127.0.0.1:8080 or https://host.example")
    return value


def is_origin(value: str) -> bool:
    """Whether it is the origin of a page: scheme, host and, if any, a valid port."""
    try:
        address = urlsplit(value)
        _ = address.port  # Raises if it is none.
    except ValueError:
        return False
    return bool(address.netloc) and value == f"{address.scheme}://{address.netloc}"


def check_broker_addresses(value: str) -> str:
    """The value, if it is a list of `host:port`, separated by commas; the port may be missing.

    Raises:
        ValueError: it is not.
    """
    if not all(_is_authority(part.strip()) for part in value.split(",")):
        raise ValueError("must be host:port, or several of these separated by commas")
    return value


def check_folder_url(value: str) -> str:
    """The value, if it is a path, or a URL that fsspec can open.

    Raises:
        ValueError: it is empty, or the library for its protocol is missing.
    """
    if not value.strip():
        raise ValueError("must be a folder, or a URL such as s3://bucket/folder")
    check_protocols(value)
    return value


def check_protocols(url: str) -> None:
    """Check that fsspec can open the protocols of a URL; a path has none.

    Raises:
        ValueError: it does not know one, or the library for it is missing.
    """
    protocols = [each for each in _PROTOCOL.findall(url) if each != "file"]
    if not protocols:
        return
    # Imported only for buckets, because every command reads settings.
    from fsspec.registry import known_implementations, registry

    for protocol in protocols:
        if protocol in registry:
            continue
        if protocol not in known_implementations:
            raise ValueError(f"the protocol {protocol!r} of its URL is not known")
        library = known_implementations[protocol]["class"].partition(".")[0]
        # The library itself is not imported: that takes longer than most commands run.
        if find_spec(library) is None:
            raise ValueError(f"the protocol {protocol!r} of its URL needs the package {library}")


def _is_host(value: str) -> bool:
    if _HOST_NAME.fullmatch(value):
        return True
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _is_http(value: str) -> bool:
    scheme, _, rest = value.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    address = authority.rpartition("@")[2]
    return scheme.lower() in ("http", "https") and _is_authority(address)


def _is_authority(value: str) -> bool:
    """Whether it is a host with, if any, a valid port; an IPv6 address is in brackets."""
    try:
        address = urlsplit(f"//{value}")
        return (
            address.netloc == value
            and address.username is None
            and _is_host(address.hostname or "")
            and address.port != 0
        )
    except ValueError:
        return False
