"""What each client sends and returns for each kind of identifier, as JSON.

The cases are those of ``interop/matrix.py``, with the classes that the client's package offers.
"""

import asyncio
import json
import logging
import warnings
from typing import Any

from azure.communication import common

from interop.matrix import KINDS, PACKAGES, module_of, reason, run


async def main() -> None:
    recorded: dict[str, Any] = {}
    for package, operations in PACKAGES.items():
        kit = module_of(package, aio=False)
        for kind in KINDS:
            if reason(package, kind):
                continue
            ours = KINDS[kind](common)
            known = hasattr(kit, type(ours[0]).__name__)
            theirs = KINDS[kind](kit if known else common)
            for one, our in zip(theirs, ours, strict=True):
                who = one if known else kit.UnknownIdentifier(our.raw_id)
                for operation in operations:
                    answer = operation.answer(common.serialize_identifier(our))
                    for aio in (False, True):
                        trial = await run(package, operation, answer, kit, who, aio=aio)
                        found = [[str(each.raw_id), each.kind, each.properties] for each in trial.found]
                        case = (package, operation.client, operation.method, our.raw_id, "aio" * aio)
                        number = len([c for c in recorded if c.startswith(" ".join(case))])
                        recorded[f"{' '.join(case)} {number}"] = [trial.sent, found, trial.error]
    print(json.dumps(recorded))


if __name__ == "__main__":
    logging.disable()  # Call Automation warns of its own arguments
    warnings.simplefilter("ignore", DeprecationWarning)  # of their own code
    asyncio.run(main())
