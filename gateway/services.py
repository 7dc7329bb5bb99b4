"""The gateway's services, built from settings and clients, and their work in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from adapters.embedder.port import Embedder
from adapters.index.port import ImageIndex
from adapters.log.port import EventLog
from analytics.engine import QueryLimits
from gateway.auth.access import Access, ApiKeys, OpenIdConnect
from gateway.auth.cursors import Cursors
from gateway.auth.privacy import Privacy
from gateway.auth.receipts import Receipts, receipt_secret
from gateway.feedback import FeedbackRecorder
from gateway.images.files import ImageFiles, ServedImages
from gateway.images.thumbnails import Thumbnails
from gateway.images.uploads import Uploads
from gateway.search.duplicates import Duplicates
from gateway.search.events import SearchEvents
from gateway.search.listing import Listing
from gateway.search.query import QueryEmbedder
from gateway.search.service import Search
from gateway.settings import GatewaySettings
from gateway.state.folders import Folders
from gateway.state.lake_queries import CONCURRENT, LakeQueries
from gateway.state.rating_metrics import RatingMetrics
from gateway.state.readiness import Readiness
from gateway.state.system_state import Backlog, SystemState
from imaging.decoders import Decoders
from imaging.sandbox.pool import Sandbox

DECODING_SHARE: Final = 0.75
"""How much of a request's time decoding one image may take, as a fraction."""


class Services:
    """All services of one gateway; nothing is contacted before `running`."""

    def __init__(
        self,
        settings: GatewaySettings,
        embedder: Embedder,
        index: ImageIndex,
        log: EventLog,
        backlog: Backlog | None,
    ) -> None:
        secret = receipt_secret(settings)
        cursors = Cursors(secret)
        self._decoders = decoders = _decoders(settings)
        self.access = _access(settings)
        self.receipts = Receipts(secret, lifetime_seconds=settings.jwt_lifetime)
        self.privacy = Privacy(settings, secret)
        self.search_events = SearchEvents(log, capacity=settings.event_buffer)
        queries = QueryEmbedder(embedder, index, decoders, text_cache=settings.text_cache)
        self.search = Search(
            queries,
            index,
            self.search_events,
            cursors,
            self.privacy,
            duplicate_score=settings.duplicate_score,
            patience=settings.outage_patience,
        )
        self.readiness = Readiness(self.search, queries, embedder, index, log)
        self.feedback = FeedbackRecorder(
            self.receipts, log, self.privacy, timeout=settings.request_timeout
        )
        self.rating_metrics = RatingMetrics(log, embedder, index, settings)
        self.lake = LakeQueries(settings.lake_url, QueryLimits.of(settings, connections=CONCURRENT))
        self.state = SystemState(
            self.search,
            index,
            log,
            backlog,
            watcher_status_file=settings.watcher_status_file,
            adoption_status_file=settings.adoption_status_file,
        )
        self.duplicates = Duplicates(index, cursors, near_score=settings.duplicate_score)
        self.listing = Listing(index, cursors, self.search.active)
        self.folders = Folders(index, self.search.active)
        self.images = ImageFiles(
            settings,
            ServedImages(self.search.image_lookup, self.state.failed_images),
            max_bytes=settings.max_image_bytes,
        )
        self.thumbnails = Thumbnails(
            self.images,
            settings.thumbnails_dir,
            decoders,
            max_bytes=settings.thumbnails_bytes,
            max_image_bytes=settings.max_image_bytes,
            readers=settings.picture_workers,
        )
        self.uploads = _uploads(settings, decoders) if settings.uploads else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do the work in the background while the block runs; then finish what is in flight."""
        self.search_events.start()
        tasks = [
            asyncio.create_task(self.search.keep_warm(), name="warm-up"),
            asyncio.create_task(self.rating_metrics.keep_fresh(), name="ratings"),
        ]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._decoders.close()
        if self.uploads is not None:
            await self.uploads.close()
        await self.search_events.stop()


def _decoders(settings: GatewaySettings) -> Decoders:
    """The decoders of queries, thumbnails and uploads, which share one limit of memory."""
    sandbox = Sandbox(
        settings.picture_workers,
        memory_bytes=settings.decode_memory_bytes * 3 // 2,
        # Below the request's deadline, so that the answer blames the image and not the time.
        seconds=min(settings.decode_seconds, DECODING_SHARE * settings.request_timeout),
        once=True,
    )
    return Decoders(sandbox, max_pixels=settings.max_pixels)


def _access(settings: GatewaySettings) -> Access:
    keys = [key.get_secret_value() for key in settings.api_keys]
    return Access(
        ApiKeys(keys) if keys else None,
        OpenIdConnect(settings.oidc_issuer, settings.oidc_audience)
        if settings.oidc_issuer and settings.oidc_audience
        else None,
    )


def _uploads(settings: GatewaySettings, decoders: Decoders) -> Uploads:
    return Uploads(
        settings.images_dir,
        decoders,
        max_bytes=settings.max_upload_bytes,
        workers=settings.picture_workers,
        reserved=[source.name for source in settings.images_sources],
        ignore_defaults=settings.ignore_defaults,
    )
