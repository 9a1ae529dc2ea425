"""What each client sends and returns for each kind of identifier, as JSON.

The cases are those of ``interop/matrix.py``, with the classes that the client's package offers.
"""

import asyncio
import json
import logging
import warnings
from itertools import product
from typing import Any

from azure.communication import common

from interop.matrix import KINDS, PACKAGES, module_of, reason, run


def bare(identifier: Any) -> Any:
    """Return the JSON of an identifier without the members that the service may leave out."""
    optional = ("isAnonymous", "cloud", "assertedId")
    return {
        name: {key: item for key, item in value.items() if key not in optional}
        if isinstance(value, dict)
        else value
        for name, value in identifier.items()
    }


async def main() -> None:
    recorded: dict[str, Any] = {}
    for package, operations in PACKAGES.items():
        kit = module_of(package, aio=False)
        for kind, make in KINDS.items():
            if reason(package, kind):
                continue
            ours = make(common)
            if hasattr(kit, type(ours[0]).__name__):
                identifiers = make(kit)
            else:
                identifiers = [kit.UnknownIdentifier(our.raw_id) for our in ours]
            for number, (who, our) in enumerate(zip(identifiers, ours, strict=True)):
                whole = common.serialize_identifier(our)
                forms = {"": whole, " bare": bare(whole)}
                if forms[" bare"] == whole:
                    del forms[" bare"]
                for operation, form, aio in product(operations, forms, (False, True)):
                    answer = operation.answer(forms[form])
                    trial = await run(package, operation, answer, kit, who, aio=aio)
                    found = [[one.raw_id, one.kind, one.properties] for one in trial.found]
                    case = f"{package} {operation.method} {kind} {number}{form}{' aio' * aio}"
                    recorded[case] = {
                        "sent": trial.sent,
                        "found": found,
                        "error": trial.error,
                        "client": operation.client,
                    }
    print(json.dumps(recorded))


if __name__ == "__main__":
    logging.disable()  # Call Automation warns of its own arguments
    warnings.simplefilter("ignore", DeprecationWarning)  # of their own code
    asyncio.run(main())
