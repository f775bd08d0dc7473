# pyright: standard
"""Asks this service what was asked of envoyproxy/ratelimit, at the same times."""

from __future__ import annotations

from typing import Any

from ratelimit_service.answers import AnswerOptions, Answers
from ratelimit_service.config_file import read_files
from ratelimit_service.handler import RateLimiter
from ratelimit_service.headers import ResponseHeaders
from ratelimit_service.planner import Planner
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.base import Store
from tests.support.ratelimit import Clock, RecordedCall
from tests.support.recorded import FOLDER, Recorded, answer_of, request_of
from tests.support.waiting import until


class Replay:
    """The service with the files of a recording, at the times of the recording."""

    def __init__(self, recorded: Recorded, store: Store) -> None:
        files = {name: (FOLDER / name).read_bytes() for name in recorded.files}
        config, faults = read_files(files, merge_domains=recorded.env.get("MERGE_DOMAIN_CONFIG") == "true")
        assert faults == []
        options = AnswerOptions(
            headers=ResponseHeaders.PLAIN,
            metadata=True,
            shadow_mode=recorded.env.get("SHADOW_MODE") == "true",
            quota_mode=recorded.env.get("QUOTA_MODE") == "true",
        )
        self.answers = answers = Answers(options)
        self.stats = StatsRegistry()
        self.stats.configure(config.rules())
        self._clock = Clock()
        looks = recorded.env.get("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT") == "true"
        self._handler = RateLimiter(store, self.stats, clock=self._clock, answers=answers, looks_first=looks)
        self._handler.use(Planner(config, self.stats, answers=answers))

    async def ask(self, at: int, domain: str, descriptors: Any, hits: int) -> Any:
        self._clock.now = at + 0.5
        call = RecordedCall()
        self._handler(request_of(domain, descriptors, hits), call)
        await until(lambda: call.body is not None, what="an answer", every_s=0.0001)
        return answer_of(call.response)

    async def ask_all(self, recorded: Recorded) -> None:
        """Asks everything that was asked, and leaves the answers."""
        for at, domain, descriptors, hits, _ in recorded.exchanges:
            await self.ask(at, domain, descriptors, hits)
