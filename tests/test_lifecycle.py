"""Runs the scenarios of lifecycle.py, unchanged, against the rules and against both credentials."""

import asyncio
import contextlib

import pytest
from azure.communication.common import CommunicationTokenCredential, _refresh, aio
from azure.communication.common._refresh import Action, Now, State
from azure.communication.common._sync import _credential
from azure.communication.common._sync._scheduler import Scheduler
from azure.communication.common._token import read_token
from azure.communication.common.aio import _credential as _aio_credential
from azure.communication.common.aio._scheduler import LoopScheduler
from azure.core.credentials import AccessToken, AccessTokenInfo

from fakes import Clock, on_clock
from lifecycle import SCENARIOS, Issue


class Play:
    """One scenario under way: its clocks, its issuer, and the names of its tokens."""

    def __init__(self, scenario):
        self.scenario = scenario
        self.clock = Clock()
        self.start = self.clock.wall()
        self.calls = 0
        self.answer = None

    def issue(self):
        """Answer as the present step says. This is the refresher."""
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, Issue):
            return self.token(self.answer.name, self.answer.life)
        return self.answer

    def token(self, name, life):
        return AccessToken(name, self.clock.wall() + life)

    @property
    def first(self):
        life = self.scenario.life
        return None if life is None else self.token("T0", life)

    def move_clocks(self, step):
        if step.do == "wait":
            self.clock.advance(step.by)
        elif step.do == "suspend":
            self.clock.suspend(step.by)
        elif step.do == "set_clock":
            self.clock.set_wall(self.clock.wall() + step.by)

    def check(self, index, step, outcome, calls):
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


class Rules:
    """The rules alone, with the least around them that makes a credential."""

    def __init__(self, play):
        self.play = play
        now = self.now()
        self.state = State(due_on=now.wall)
        if play.first is not None:
            first = read_token(play.first, now.wall, None, "token")
            self.state = _refresh.start(State(), first, now, proactive=play.scenario.proactive)

    def now(self):
        return Now(self.play.clock.wall(), self.play.clock.mono())

    def ask(self, claims):
        action = _refresh.decide(self.state, self.now(), claims=claims)
        if action is Action.RAISE:
            raise self.state.error or RuntimeError("closed")
        if action is Action.REFRESH:
            self.refresh(claims)
        token = self.state.token
        refresh_on = _refresh.refresh_on(self.state, token)
        return AccessTokenInfo(token.token, token.expires_on, refresh_on=refresh_on)

    def refresh(self, claims):
        now, proactive = self.now(), self.play.scenario.proactive
        try:
            token = read_token(self.play.issue(), now.wall, None, "token")
            _refresh.check_result(self.state, token, now)
        except Exception as exc:
            self.state = _refresh.fail(
                self.state, _refresh.read_failure(exc), now, claims, jitter=0.0, proactive=proactive
            )
            if claims is not None or _refresh.life_left(self.state, now) <= 0:
                raise
        else:
            self.state = _refresh.succeed(self.state, token, now, claims, proactive=proactive)

    def background(self):
        now = self.now()
        due_on = self.state.due_on
        if _refresh.life_left(self.state, now) > 0:  # the schedule follows a clock that is set back
            due_on = min(due_on, now.wall + self.state.ask_at - now.mono)
        if now.wall >= due_on:
            with contextlib.suppress(Exception):  # nobody is told
                self.refresh(None)

    def refuse(self, text):
        if self.state.token is not None and self.state.token.token == text:
            self.state = _refresh.refuse(self.state, self.now(), jitter=0.0)

    def close(self):
        self.state = _refresh.CLOSED


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_rules(scenario):
    """The rules do what the scenario says."""
    play = Play(scenario)
    rules = Rules(play)
    for index, step in enumerate(scenario.steps):
        calls, play.answer = play.calls, step.issuer
        play.move_clocks(step)
        outcome = None
        if step.do == "ask":
            try:
                outcome = rules.ask(step.claims)
            except Exception as exc:
                outcome = exc
        elif step.do == "background":
            rules.background()
        elif step.do == "refuse":
            rules.refuse(step.token)
        elif step.do == "close":
            rules.close()
        play.check(index, step, outcome, calls)


class InlineWorkers:
    """Refreshes on the thread that asks for it."""

    def run(self, reference):
        item = reference()
        if item is not None:
            item._refresh_ahead()


class ThreadlessScheduler(Scheduler):
    """Looks when the test says so."""

    def __init__(self, clock):
        super().__init__(clock.wall, clock.mono, lambda: 0.0)
        self._workers = InlineWorkers()
        self._running = True


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_sync_credential(scenario, monkeypatch):
    """The synchronous credential does what the scenario says."""
    play = Play(scenario)
    threadless = ThreadlessScheduler(play.clock)
    monkeypatch.setattr(_credential, "scheduler", lambda: threadless)
    credential = on_clock(CommunicationTokenCredential, play.clock)(
        play.first, token_refresher=play.issue, proactive_refresh=scenario.proactive
    )
    for index, step in enumerate(scenario.steps):
        calls, play.answer = play.calls, step.issuer
        play.move_clocks(step)
        outcome = None
        if step.do == "ask":
            options = {"claims": step.claims} if step.claims else {}
            try:
                outcome = credential.get_token_info(options=options)
                assert credential.get_token(**options) == (outcome.token, outcome.expires_on)
            except Exception as exc:
                outcome = exc
        elif step.do == "background":
            threadless.run_due()
        elif step.do == "refuse":
            credential.invalidate_token(step.token)
        elif step.do == "close":
            credential.close()
        play.check(index, step, outcome, calls)


@pytest.mark.parametrize("plain", [True, False], ids=["plain refresher", "async refresher"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_async_credential(scenario, plain, monkeypatch):
    """The asynchronous credential does what the scenario says, with either kind of refresher."""
    play = Play(scenario)
    scheduler = LoopScheduler(play.clock.wall, play.clock.mono, lambda: 0.0)
    monkeypatch.setattr(_aio_credential, "scheduler", lambda loop: scheduler)

    async def issue():
        await asyncio.sleep(0)
        return play.issue()

    async def run():
        # Timers that look too early for the test are harmless: they look at its clocks.
        monkeypatch.setattr(scheduler, "_set_timer", lambda: None)
        credential = on_clock(aio.CommunicationTokenCredential, play.clock)(
            play.first,
            token_refresher=play.issue if plain else issue,
            proactive_refresh=scenario.proactive,
        )
        for index, step in enumerate(scenario.steps):
            calls, play.answer = play.calls, step.issuer
            play.move_clocks(step)
            outcome = None
            if step.do == "ask":
                options = {"claims": step.claims} if step.claims else {}
                try:
                    outcome = await credential.get_token_info(options=options)
                    token = await credential.get_token(**options)
                    assert token == (outcome.token, outcome.expires_on)
                except Exception as exc:
                    outcome = exc
            elif step.do == "background":
                scheduler._look()
                await asyncio.gather(*scheduler._under_way)
            elif step.do == "refuse":
                credential.invalidate_token(step.token)
            elif step.do == "close":
                await credential.close()
            play.check(index, step, outcome, calls)

    asyncio.run(run())


def test_the_table_exercises_every_rule():
    """A scenario table that lost its refusals, claims or background would say little."""
    done = {step.do for scenario in SCENARIOS for step in scenario.steps}
    assert done == {"ask", "background", "wait", "suspend", "set_clock", "refuse", "close"}
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
