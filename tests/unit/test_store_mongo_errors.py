"""What becomes of MongoDB's errors, and that no secret gets into a text."""

from __future__ import annotations

import pytest
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from matchday.clock import ManualClock
from matchday.errors import ConfigError, DeniedError, UnavailableError
from matchday.store.mongo import MongoStore
from matchday.store.mongo_errors import (
    address_of,
    is_of_no_document,
    is_transient,
    reason_of,
    translate,
)

URL = "mongodb://harbour:anchor-17@db.example:27017/?replicaSet=rs"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AutoReconnect("connection closed"), UnavailableError),
        (NetworkTimeout("timed out"), UnavailableError),
        (ServerSelectionTimeoutError("No servers found"), UnavailableError),
        (OperationFailure("not primary", 10107), UnavailableError),
        (OperationFailure("something new", 424242), UnavailableError),
        (OperationFailure("Authentication failed.", 18), DeniedError),
        (OperationFailure("not authorized on server", 13), DeniedError),
        (ConfigurationError("unknown option"), ConfigError),
    ],
)
def test_every_kind_of_error_tells_the_caller_what_to_do(error: PyMongoError, kind: type):
    found = translate(error, action="writing sensors", address="db:27017/server", url=URL)
    assert type(found) is kind
    assert str(found).startswith("writing sensors at db:27017/server: ")


def test_user_and_password_never_show():
    error = OperationFailure("user harbour with anchor-17 at mongodb://x:y@z is odd", 72)
    text = str(translate(error, action="reading", address="db", url=URL))
    assert "harbour" not in text
    assert "anchor-17" not in text
    assert "x:y" not in text


def test_url_that_is_not_understood_is_a_configuration_error_without_its_password():
    with pytest.raises(ConfigError) as caught:
        MongoStore("mongodb://harbour:anchor-17@db:notaport/", clock=ManualClock())
    assert "anchor-17" not in str(caught.value)


def test_address_names_hosts_and_database_only():
    assert address_of(URL, "server") == "db.example:27017/server"
    assert address_of("mongodb+srv://a:b@cluster.example/?w=1", "x") == "cluster.example/x"
    assert address_of("nonsense", "server") == "?/server"


def test_passing_trouble_is_told_from_refusals():
    assert is_transient(NetworkTimeout("timed out"))
    assert is_transient(OperationFailure("stepped down", 189))
    assert not is_transient(OperationFailure("too large", 10334))
    assert is_of_no_document({"index": 0, "code": 189})
    assert is_of_no_document({"code": 64, "errmsg": "waiting for replication timed out"})
    assert not is_of_no_document({"index": 0, "code": 2})


def test_reason_is_one_short_line():
    error = ServerSelectionTimeoutError(
        "refused\nby peer, Timeout: 3.0s, Topology Description: ..."
    )
    assert reason_of(error) == "refused by peer"


def test_refused_user_is_named_with_what_to_do_and_the_command_is_left_out():
    lacking = OperationFailure(
        "not authorized on harbour to execute command { insert: 'sensors', documents: [] }", 13
    )
    text = str(translate(lacking, action="writing sensors", address="db", url=URL))
    assert text.startswith("writing sensors at db: user 'harbour' lacks the right: not authorized")
    assert "not authorized on harbour" in text  # a database may be called as the user
    assert "matchday setup" in text
    assert "insert" not in text
    assert "anchor-17" not in text
