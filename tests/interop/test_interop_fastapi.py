"""Identifiers as the types of a FastAPI application's bodies, parameters and responses."""

import asyncio

import httpx
import pytest
from azure.communication.common import (
    CommunicationIdentifier,
    CommunicationUserIdentifier,
    MicrosoftTeamsUserIdentifier,
    PhoneNumberIdentifier,
    identifier_from_raw_id,
)
from fastapi import FastAPI
from pydantic import BaseModel


class Call(BaseModel):
    caller: PhoneNumberIdentifier
    agent: CommunicationUserIdentifier | MicrosoftTeamsUserIdentifier | None = None
    others: list[CommunicationIdentifier] = []


app = FastAPI()


@app.post("/calls")
def create_call(call: Call) -> Call:
    assert isinstance(call.caller, PhoneNumberIdentifier)
    return call


@app.get("/numbers")
def get_number(number: PhoneNumberIdentifier) -> str:
    return number.value


@app.get("/users/{raw_id}")
def get_user(raw_id: str) -> CommunicationIdentifier:
    return identifier_from_raw_id(raw_id)


def request(method, path, **options):
    async def main():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="https://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(main())


PHONE = {"rawId": "4:+14255550123", "phoneNumber": {"value": "+14255550123", "isAnonymous": False}}
USER = {"rawId": "8:acs:r_u", "communicationUser": {"id": "8:acs:r_u"}}
APP = {"rawId": "28:dod:a", "microsoftTeamsApp": {"appId": "a", "cloud": "dod"}}


@pytest.mark.parametrize(
    "body",
    [
        {"caller": "4:+14255550123", "agent": "8:acs:r_u", "others": ["28:dod:a", "9:future:x"]},
        {"caller": PHONE, "agent": USER, "others": [APP, {"rawId": "9:future:x"}]},
    ],
    ids=["raw ids", "wire JSON"],
)
def test_body(body):
    """A body has raw ids or the service's JSON, and the response has the service's JSON."""
    response = request("POST", "/calls", json=body)
    assert response.status_code == 200
    assert response.json() == {
        "caller": PHONE,
        "agent": USER,
        "others": [APP, {"rawId": "9:future:x"}],
    }


@pytest.mark.parametrize(
    ("body", "place", "message"),
    [
        ({"caller": "8:acs:r_u"}, "caller", "PhoneNumberIdentifier, not of Communication"),
        ({"caller": USER}, "caller", "PhoneNumberIdentifier, not of Communication"),
        ({"caller": {"phoneNumber": {}}}, "caller", "phoneNumber.value is missing"),
        ({"caller": PHONE, "agent": "4:+1"}, "agent", "not of PhoneNumberIdentifier"),
        ({"caller": PHONE, "others": [{}]}, "others", "must have the member rawId or one of"),
        ({"caller": PHONE, "others": [5]}, "others", "expected an identifier, a raw id or its"),
    ],
)
def test_wrong_body(body, place, message):
    """What is not an identifier, or is one of another kind, is a 422 that names the place."""
    response = request("POST", "/calls", json=body)
    assert response.status_code == 422
    error = response.json()["detail"][0]
    assert error["loc"][:2] == ["body", place]
    assert message in error["msg"]


def test_query():
    """A query parameter has a raw id; one of another kind is a 422."""
    response = request("GET", "/numbers", params={"number": "4:+14255550123"})
    assert response.json() == "+14255550123"
    assert request("GET", "/numbers", params={"number": "8:acs:r_u"}).status_code == 422


def test_response():
    """A response of the protocol's type has the JSON of whatever kind it is."""
    assert request("GET", "/users/8:acs:r_u").json() == USER


def test_openapi():
    """The document at ``/openapi.json`` has the schema of each field, for reading and writing."""
    document = request("GET", "/openapi.json").json()
    schemas = document["components"]["schemas"]
    read, written = (schemas[name]["properties"] for name in ("Call-Input", "Call-Output"))
    text, model = read["caller"]["anyOf"]
    assert text == {"type": "string", "description": "A raw id."}
    assert model["required"] == ["phoneNumber"]
    assert written["caller"]["required"] == ["rawId", "phoneNumber"]
    assert set(written["caller"]["properties"]) == {"rawId", "phoneNumber"}
    assert len(read["others"]["items"]["anyOf"]) == 7
    assert len(written["others"]["items"]["anyOf"]) == 6
    (number,) = document["paths"]["/numbers"]["get"]["parameters"]
    assert number["schema"]["title"] == "Number"
