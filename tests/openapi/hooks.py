"""What schemathesis cannot know: whose tokens to send, and which names and passwords are good. Loaded by it."""

import os
import uuid

import requests
import schemathesis
from hypothesis import strategies as st

# The gateway with its prefix, and whether anyone may register there.
ENDPOINTS = os.environ["ENDPOINTS"]
IS_OPEN = os.environ["IS_OPEN"] == "true"
PASSWORD = "correct horse battery"


def tokens(path, name):
    answer = requests.post(ENDPOINTS + path, json={"username": name, "password": PASSWORD}, timeout=10)
    answer.raise_for_status()
    return answer.json()


@schemathesis.auth(refresh_interval=None)
class Fresh:
    """A session of its own for each case: the case before may have ended its session."""

    def get(self, case, context):
        schemes = [name for entry in context.operation.definition.raw["security"] for name in entry]
        if not schemes:
            return None
        if case.path.endswith("/users") or not IS_OPEN:
            pair = tokens("/login", "root")
        else:
            pair = tokens("/registration", f"user-{uuid.uuid4()}")
        return pair[f"{schemes[0]}_token"]

    def set(self, case, token, context):
        case.headers["Authorization"] = f"Bearer {token}"


# JSON Schema counts characters and knows no normal form: these are good by all the rules that the document tells.
PLAIN = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
schemathesis.openapi.format("username", st.text(PLAIN, min_size=1, max_size=120))
schemathesis.openapi.format("password", st.text(PLAIN, min_size=8, max_size=1024))
# A pattern that ends with `$` also fits a text with a newline at its end.
schemathesis.openapi.format("cursor", st.from_regex(r"[0-9]{1,18}[.][0-9A-Za-z-]{1,36}", fullmatch=True, alphabet=PLAIN))


@schemathesis.hook
def filter_case(context, case):
    """Not field names that no header of a part can hold: requests writes them as they are."""
    is_parts = case.media_type == "multipart/form-data" and isinstance(case.body, dict)
    return not is_parts or all(name.isprintable() for name in case.body)
