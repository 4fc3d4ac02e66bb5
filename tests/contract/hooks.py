"""Loaded by schemathesis: every call that it makes, in whatever phase, is tamed before it is sent."""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis
from schemathesis import GenerationMode

from tests.contract.tamer import Tamer

TAMER = Tamer(**json.loads(os.environ["CONTRACT"]))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    good = case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE
    method, path = case.method.upper(), case.path
    if good:
        TAMER.lead(case.path_parameters or {})
        TAMER.lead(case.query or {})
    TAMER.spare(method, path, case.path_parameters or {})
    if isinstance(case.body, (dict, list)):
        case.body = TAMER.body(method, path, case.body, good=good)
