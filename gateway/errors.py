"""The errors of the gateway's services.

Services do not know HTTP: `gateway.http.problems` maps these errors, and those of `adapters`, to
responses.

GatewayError
├── ImageNotFound    there is no such image, or it may not be shown
├── ImageTooLarge    the image has more bytes than the gateway sends
├── NotIndexedYet    the image did not become searchable in time
├── TooManyWaiting   too many requests wait for images already
├── NameTaken        another image has this name
├── NotAllowed       uploads are disabled, or the folder cannot be written to
├── StorageFull      the disk has no room for the image
├── Denied           the sender of the request has no valid credential
├── InvalidReceipt   the receipt was not signed here, or has expired
└── NotReady         a search cannot be answered now; says which parts are missing
InvalidField         one field of the request cannot be used (a `Rejected`, as decoders raise)
"""

from __future__ import annotations

from collections.abc import Mapping

from adapters.errors import Rejected


class GatewayError(Exception):
    """Base of the errors of the gateway's services; clients get its message, a sentence."""


class ImageNotFound(GatewayError):
    """There is no image of this name, or it may not be shown. Which of the two is not disclosed."""

    def __init__(self) -> None:
        super().__init__("There is no such picture.")


class ImageTooLarge(GatewayError):
    """The image has more bytes than the gateway sends."""

    def __init__(self) -> None:
        super().__init__("The picture is too large.")


class NotIndexedYet(GatewayError):
    """The image did not become searchable within the time given. It still may."""

    def __init__(self, image_id: str, sha256: str | None, seconds: float) -> None:
        super().__init__(
            f"{image_id} could not be found within {seconds:g} s. If the picture can be decoded, "
            "it will be found later; otherwise it becomes a dead letter."
        )
        self.image_id = image_id
        self.sha256 = sha256


class TooManyWaiting(GatewayError):
    """The number of requests that may wait for images at the same time is reached."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests are already waiting for pictures.")


class NameTaken(GatewayError):
    """Another image has this name; `free_name` is a similar one that is free."""

    def __init__(self, name: str, free_name: str) -> None:
        super().__init__(f"{name} already exists with other content.")
        self.free_name = free_name


class NotAllowed(GatewayError):
    """Uploads are disabled, or the gateway has no permission to write the file."""


class StorageFull(GatewayError):
    """The disk, or the quota, has no room for the image."""

    def __init__(self) -> None:
        super().__init__("There is no space for this picture.")


class Denied(GatewayError):
    """The credential is missing or not valid; the message says which."""


class InvalidReceipt(GatewayError):
    """Not a receipt that this system signed, or one that has expired; the message says which."""


class NotReady(GatewayError):
    """A search cannot be answered now.

    `missing` maps each part that is missing to the reason.
    """

    def __init__(self, missing: Mapping[str, str]) -> None:
        reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
        super().__init__(f"A search cannot be answered now ({reasons}).")
        self.missing = dict(missing)


class InvalidField(Rejected):
    """The value of one field of the request cannot be used; `field` is the field's name."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
