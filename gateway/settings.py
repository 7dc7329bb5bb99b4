"""Settings of the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from adapters.addresses import is_origin
from adapters.settings import Host, HttpAddress, Port, Seconds, SecondsOrZero
from analytics.settings import LakeSettings, QuerySettings
from imaging.settings import DecodingSettings
from imaging.sources.settings import SourceSettings
from models.settings import AdviceSettings

MINIMUM_KEY: Final = 16
"""Characters of an API key; a shorter one could be guessed."""
MINIMUM_SECRET_BYTES: Final = 32
"""RFC 7518, section 3.2: the key is at least as long as the hash's output."""


class GatewaySettings(
    SourceSettings, LakeSettings, AdviceSettings, QuerySettings, DecodingSettings
):
    """The gateway: the HTTP API and the page."""

    gateway_host: Host = "127.0.0.1"
    """Address that the gateway listens on."""
    gateway_port: Port = 3000
    """Port that the gateway listens on."""
    max_image_bytes: Annotated[int, Field(ge=1)] = 200_000_000
    """Bytes above which a picture is neither served nor shown as a thumbnail."""
    jwt_secret: SecretStr | None = None
    """Secret that signs receipts, at least 32 bytes; by default the one in `JWT_SECRET_FILE`."""
    jwt_secret_file: Path = Path(".stack/jwt.secret")
    """File with the secret that signs receipts; created with mode 0600 if it is missing. In the
    local stack its default is in `STATE_DIR`."""
    jwt_lifetime: Seconds = 24 * 3600.0
    """Seconds for which a receipt is valid."""
    request_timeout: Seconds = 20.0
    """Seconds after which a request fails with status 503."""
    outage_patience: SecondsOrZero = 15.0
    """Seconds that a search waits for a server that has just gone down; 0 to fail at once."""
    max_body_bytes: Annotated[int, Field(ge=1)] = 30_000_000
    """Maximum bytes of a request's body; uploads have a limit of their own."""
    event_buffer: Annotated[int, Field(ge=1)] = 10_000
    """Search events that are buffered until Kafka stores them; further ones are dropped."""
    duplicate_score: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Cosine similarity from which two pictures count as near-duplicates."""
    watcher_status_file: Path | None = None
    """The watcher's `STATUS_FILE`, which names the skipped files; without it, the gateway does not
    report them."""
    adoption_status_file: Path | None = None
    """The local stack's file on the automatic change to a better model; without it, the gateway
    does not report one."""
    uploads: bool = True
    """Whether pictures may be added over HTTP."""
    max_upload_bytes: Annotated[int, Field(ge=1)] = 100_000_000
    """Maximum bytes of an uploaded picture."""
    upload_timeout: Seconds = 300.0
    """Seconds after which an upload fails with status 503."""
    picture_workers: Annotated[int, Field(ge=1)] = 2
    """Processes that decode pictures of queries, thumbnails and uploads; also the number of uploads
    that are stored at the same time."""
    thumbnails_dir: Path = Path(".stack/thumbnails")
    """Folder of the thumbnails' cache. In the local stack its default is in `STATE_DIR`."""
    thumbnails_bytes: Annotated[int, Field(ge=1_000_000)] = 500_000_000
    """Approximate bytes of the thumbnails; beyond them the least recently used ones are deleted."""
    api_keys: tuple[SecretStr, ...] = ()
    """API keys, separated by commas or white space. If any is set, every route but the health check
    requires a key or a token."""
    oidc_issuer: HttpAddress | None = None
    """Address of an OpenID Connect issuer. If one is set, every route but the health check requires
    one of its tokens or a key."""
    oidc_audience: str | None = None
    """The audience that the issuer's tokens must name."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names that the gateway answers to, besides localhost and every IP address, separated
    by commas or white space: `photos.example`, `*.example`, or `*` for any (see decision 17)."""
    cors_origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may use the API, for instance `https://photos.example`."""
    rate_limit: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    """Requests a second that one client may send on average; 0 for no limit."""
    rate_burst: Annotated[int, Field(ge=1)] = 50
    """Requests that one client may send at once before `RATE_LIMIT` applies."""
    log_texts: bool = True
    """Whether search and feedback events contain the query's text."""
    log_clients: bool = True
    """Whether search and feedback events identify the client, by a hashed name."""
    client_salt: SecretStr | None = None
    """Salt of that hash; by default derived from the secret that signs receipts."""
    text_cache: Annotated[int, Field(ge=0)] = 4096
    """Number of text embeddings that are cached for each model."""

    @field_validator("api_keys", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("jwt_secret")
    @classmethod
    def _secret(cls, secret: SecretStr | None) -> SecretStr | None:
        # An empty one counts as none.
        if secret and len(secret.get_secret_value().encode()) < MINIMUM_SECRET_BYTES:
            raise ValueError(f"must have at least {MINIMUM_SECRET_BYTES} bytes")
        return secret

    @field_validator("api_keys")
    @classmethod
    def _long_enough(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < MINIMUM_KEY for key in keys):
            raise ValueError(f"each key must have at least {MINIMUM_KEY} characters")
        return keys

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            name = host.removeprefix("*.")
            if host != "*" and (not name or any(c in name for c in "*:/@[]")):
                raise ValueError(f"{host!r} is not a name such as photos.example or *.example")
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not is_origin(origin):
                raise ValueError(f"{origin!r} is not an origin such as https://photos.example")
        return origins

    @model_validator(mode="after")
    def _issuer_and_audience(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("set both OIDC_ISSUER and OIDC_AUDIENCE, or neither")
        if self.oidc_issuer is not None:
            address = urlsplit(self.oidc_issuer)
            local = address.hostname in ("localhost", "127.0.0.1", "::1")
            if address.scheme != "https" and not (local and address.scheme == "http"):
                raise ValueError("OIDC_ISSUER must be an https address")
        return self
