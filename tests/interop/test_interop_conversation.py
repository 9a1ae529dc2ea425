"""Whole conversations of the published chat client, sync and aio, with our credential.

The local service issues and verifies the tokens. Its clock, the credential's and azure-core's are
one, which only the tests move.
"""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest
from azure.communication import common
from azure.communication.chat import ChatParticipant
from azure.communication.common import aio as common_aio
from azure.core.exceptions import ClientAuthenticationError

from interop.matrix import module_of, settle
from local_service import LocalService
from scaffolding import Clock, on_clock

LIFETIME = 600  # of a token, in seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(wall=time.time())
    monkeypatch.setattr(time, "time", clock.wall)  # for azure-core's policy
    return clock


@pytest.fixture
def service(clock):
    # The identity client writes its dates by the machine's clock.
    tolerance = {"date_tolerance": 1_000_000}
    with LocalService(token_lifetime=LIFETIME, clock=clock.wall, **tolerance) as service:
        yield service


class Chat:
    """Alice's credential and clients, and Bob, whom she talks to."""

    def __init__(self, service, clock, stack, *, aio, policy):
        self._service, self._stack, self._aio, self._policy = service, stack, aio, policy
        self._ours = common_aio if aio else common
        cls = on_clock(self._ours.CommunicationTokenCredential, clock)
        self.credential = cls(token_refresher=self._fetch_async if aio else self._fetch)

    async def start(self):
        identity = module_of("identity", aio=self._aio).CommunicationIdentityClient
        self._identity = self.keep(
            identity.from_connection_string(
                self._service.connection_string, **self._service.client_options()
            )
        )
        users = [await settle(self._identity.create_user()) for _ in range(2)]
        self.alice, self.bob = [common.CommunicationUserIdentifier(one.raw_id) for one in users]

    def keep(self, client):
        """Return a client, which is closed when the conversation ends."""
        if hasattr(client, "close"):
            at_end = self._stack.push_async_callback if self._aio else self._stack.callback
            at_end(client.close)
        return client

    def _fetch(self):
        return self._identity.get_token(self.alice, ["chat"]).token

    async def _fetch_async(self):
        return (await self._identity.get_token(self.alice, ["chat"])).token

    def options(self):
        """Return a client's options: each needs a policy of its own, as always in azure-core."""
        options = self._service.client_options()
        if self._policy:
            policy = self._ours.get_authentication_policy(self._service.endpoint, self.credential)
            options["per_retry_policies"] = policy
        return options

    def client(self):
        return self.keep(
            module_of("chat", aio=self._aio).ChatClient(
                self._service.endpoint, self.credential, **self.options()
            )
        )

    async def thread(self, client):
        invited = [ChatParticipant(identifier=self.bob, display_name="Bob")]
        created = await settle(client.create_chat_thread("topic", thread_participants=invited))
        return self.join(client, created.chat_thread.id)

    def join(self, client, thread_id):
        return self.keep(client.get_chat_thread_client(thread_id, **self.options()))

    @property
    def tokens(self):
        """How many tokens were issued to Alice."""
        return self._service.issued[self.alice.raw_id]


def run(service, clock, conversation, *, aio, policy=True):
    async def main():
        async with AsyncExitStack() as stack:
            chat = Chat(service, clock, stack, aio=aio, policy=policy)
            await chat.start()
            await conversation(chat)

    asyncio.run(main())


both = pytest.mark.parametrize("aio", [False, True], ids=["sync", "aio"])


@both
def test_conversation(service, clock, aio):
    """It goes on while the token rolls over twice and is revoked once, and nobody sees a 401."""

    async def conversation(chat):
        client = chat.client()
        thread = await chat.thread(client)
        first = await settle(thread.send_message("one", sender_display_name="Alice"))
        assert chat.tokens == 1
        clock.advance(LIFETIME - 60)  # soon to expire
        await settle(thread.send_message("two"))
        assert chat.tokens == 2
        clock.advance(LIFETIME + 1)  # has expired
        await settle(thread.update_message(first.id, content="one, edited"))
        assert chat.tokens == 3
        service.revoke(chat.alice.raw_id)
        await settle(thread.send_message("three"))
        assert chat.tokens == 4

        members = await settle(thread.list_participants())
        assert {one.identifier.raw_id for one in members} == {chat.alice.raw_id, chat.bob.raw_id}
        messages = [one for one in await settle(thread.list_messages()) if one.type == "text"]
        assert [one.content.message for one in messages] == ["three", "two", "one, edited"]
        assert all(one.sender == chat.alice and chat.alice == one.sender for one in messages)
        await settle(thread.remove_participant(chat.bob))
        await settle(thread.add_participants([ChatParticipant(identifier=chat.bob)]))
        await settle(client.delete_chat_thread(thread.thread_id))
        assert chat.tokens == 4
        assert [one.status for one in service.requests if one.status >= 400] == [401]

    run(service, clock, conversation, aio=aio)


@both
def test_without_our_policy(service, clock, aio):
    """The client's own policy gives the caller every 401, until the caller tells the credential."""

    async def conversation(chat):
        client = chat.client()
        thread = await chat.thread(client)
        service.revoke(chat.alice.raw_id)
        for _ in range(2):
            with pytest.raises(ClientAuthenticationError) as refused:
                await settle(thread.send_message("one"))
        assert chat.tokens == 1
        authorization = refused.value.response.request.headers["Authorization"]
        chat.credential.invalidate_token(authorization.removeprefix("Bearer "))
        await settle(thread.send_message("one"))
        assert chat.tokens == 2

    run(service, clock, conversation, aio=aio, policy=False)


@both
def test_many_clients(service, clock, aio):
    """One revocation costs eight clients one new token, and each of them one replay."""

    async def conversation(chat):
        client = chat.client()
        thread = await chat.thread(client)
        threads = [chat.join(client, thread.thread_id) for _ in range(8)]
        for one in threads:
            await settle(one.send_message("before"))
        service.revoke(chat.alice.raw_id)
        for one in threads:
            await settle(one.send_message("after"))
        assert chat.tokens == 2
        assert service.statuses[401] == 8

    run(service, clock, conversation, aio=aio)
