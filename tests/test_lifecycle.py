"""Runs the scenarios of lifecycle.py against the cache alone and against both credentials."""

import asyncio
from typing import Any

import pytest
from azure.communication.common import CommunicationTokenCredential, aio
from azure.core.credentials import AccessToken

from lifecycle import SCENARIOS, Issue, Scenario, Step
from scaffolding import (
    Clock,
    InlineWorkers,
    TokenCache,
    cache_of,
    install,
    loop_scheduler,
    on_clock,
    rules,
    threadless,
)

each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


class Play:
    """One scenario under way: its clocks, its issuer, and the names of its tokens."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = Clock()
        self.start = self.clock.wall()
        self.calls = 0
        self.answer: Any = None

    def issue(self, *_: object) -> Any:
        """Answer as the present step says. This is the refresher."""
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, Issue):
            return self.token(self.answer.name, self.answer.life)
        return self.answer

    def token(self, name: str, life: float) -> AccessToken:
        return AccessToken(name, self.clock.wall() + life)  # type: ignore[arg-type]

    @property
    def first(self) -> AccessToken | None:
        life = self.scenario.life
        return None if life is None else self.token("T0", life)

    def begin(self, step: Step) -> int:
        """Move the clocks, and set what the issuer answers; return its calls so far."""
        self.answer = step.issuer
        if step.do == "wait":
            self.clock.advance(step.by)
        elif step.do == "suspend":
            self.clock.suspend(step.by)
        elif step.do == "set_clock":
            self.clock.set_wall(self.clock.wall() + step.by)
        return self.calls

    def check(self, index: int, step: Step, outcome: Any, calls: int) -> None:
        """Compare what a step did with what it says."""
        where = f"step {index + 1}: {step}"
        assert self.calls - calls == step.calls, f"issuer calls at {where}"
        if step.do == "ask":
            if isinstance(step.gets, str):
                assert getattr(outcome, "token", outcome) == step.gets, where
            else:
                assert isinstance(outcome, step.gets), f"{outcome!r} at {where}"
        if step.refresh_on is not None:
            assert outcome.refresh_on == int(self.start + step.refresh_on), where


class Alone:
    """The cache alone, with the least around it that makes a credential."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.scheduler = threadless(play.clock, InlineWorkers(), seed=0)
        self.cache = TokenCache(
            play.first,
            play.issue,
            proactive=play.scenario.proactive,
            clock=play.clock.sources(),
            on_change=self.scheduler.add,
        )
        self.cache.changed()

    def ask(self, claims: str | None) -> Any:
        request = rules.Refresh(claims)
        decision = self.cache.begin(request)
        if decision.action is rules.Action.LEAD:
            outcome: rules.Outcome
            try:
                outcome = self.cache.read(self.cache.request({}))
            except Exception as error:
                outcome = error
            self.cache.complete(request, outcome)
            decision = self.cache.begin(rules.Refresh(claims), request)
        if decision.error is not None:
            return decision.error
        assert decision.token is not None
        return self.cache.info(decision.token)


@each_scenario
def test_cache(scenario: Scenario) -> None:
    """The cache does what the scenario says."""
    play = Play(scenario)
    alone = Alone(play)
    for index, step in enumerate(scenario.steps):
        calls, outcome = play.begin(step), None
        if step.do == "ask":
            outcome = alone.ask(step.claims)
        elif step.do == "background":
            alone.scheduler.run_due()
        elif step.do == "refuse":
            alone.cache.invalidate(step.token)
        elif step.do == "close":
            alone.cache.close()
        play.check(index, step, outcome, calls)


@each_scenario
def test_sync_credential(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The synchronous credential does what the scenario says."""
    play = Play(scenario)
    scheduler = install(monkeypatch, threadless(play.clock, InlineWorkers(), seed=0))
    credential: Any = on_clock(CommunicationTokenCredential, play.clock)(
        play.first,  # type: ignore[arg-type]
        token_refresher=play.issue,
        proactive_refresh=scenario.proactive,
    )
    for index, step in enumerate(scenario.steps):
        calls, outcome = play.begin(step), None
        if step.do == "ask":
            options = {"claims": step.claims} if step.claims else {}
            try:
                outcome = credential.get_token_info(options=options)
                assert credential.get_token(**options) == (outcome.token, outcome.expires_on)
            except Exception as exc:
                outcome = exc
        elif step.do == "background":
            scheduler.run_due()
        elif step.do == "refuse":
            credential.invalidate_token(step.token)
        elif step.do == "close":
            credential.close()
        play.check(index, step, outcome, calls)


@pytest.mark.parametrize("plain", [True, False], ids=["plain refresher", "async refresher"])
@each_scenario
def test_async_credential(scenario: Scenario, plain: bool) -> None:
    """The asynchronous credential does what the scenario says, with either kind of refresher."""
    play = Play(scenario)

    async def issue() -> Any:
        await asyncio.sleep(0)
        return play.issue()

    async def run() -> None:
        scheduler = loop_scheduler(asyncio.get_running_loop(), play.clock)
        # The loop's own timers are on another clock.
        scheduler._set_timer = lambda: None  # type: ignore[method-assign]
        credential: Any = on_clock(aio.CommunicationTokenCredential, play.clock)(
            play.first,  # type: ignore[arg-type]
            token_refresher=play.issue if plain else issue,
            proactive_refresh=scenario.proactive,
        )
        for index, step in enumerate(scenario.steps):
            calls, outcome = play.begin(step), None
            if step.do == "ask":
                options = {"claims": step.claims} if step.claims else {}
                try:
                    outcome = await credential.get_token_info(options=options)
                    token = await credential.get_token(**options)
                    assert token == (outcome.token, outcome.expires_on)
                except Exception as exc:
                    outcome = exc
            elif step.do == "background":
                scheduler.run_due()
                while cache_of(credential).state.refreshes:
                    await asyncio.sleep(0)
            elif step.do == "refuse":
                credential.invalidate_token(step.token)
            elif step.do == "close":
                await credential.close()
            play.check(index, step, outcome, calls)

    asyncio.run(run())


def test_the_table_exercises_every_rule() -> None:
    """A scenario table that lost its refusals, claims or background would say little."""
    done = {step.do for scenario in SCENARIOS for step in scenario.steps}
    assert done == {"ask", "background", "wait", "suspend", "set_clock", "refuse", "close"}
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
