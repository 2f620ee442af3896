"""Readers of recordings, against the bundled real files and small ones made here."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from matchday.domain.topics import parse_native
from matchday.errors import ConfigError
from matchday.sensors.native import line_of
from matchday.sensors.recordings import ReadOptions, RecordedMessage, Recording, open_recording

EXAMPLES = Path(__file__).parents[2] / "examples" / "recordings"

Write = Callable[..., Recording]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Give a function that writes a file and opens it as a recording."""

    def write(content: str | bytes, name: str = "some.dat", **options: Any) -> Recording:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return open_recording(path, ReadOptions(**options))

    return write


def instant_ms(*parts: int) -> int:
    return round(datetime(*parts, tzinfo=UTC).timestamp() * 1000)


def objects_of(messages: list[RecordedMessage]) -> list[dict[str, Any]]:
    return [entry for message in messages for entry in message.payload["objects"]]


# --- the bundled files ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "messages", "skipped"),
    [
        ("match.csv.gz", "tracking CSV", 9_000, {}),
        ("crowd-bottleneck.txt.gz", "trajectory text", 1_657, {}),
        ("footfall-melbourne.csv.gz", "footfall CSV", 76_962, {}),
        ("machine-temperature.csv.gz", "time series CSV", 22_695, {}),
        ("taxi-passengers.csv.gz", "time series CSV", 10_320, {}),
        ("yosemite-temperature.csv.gz", "time series CSV", 18_709, {"empty value": 12}),
    ],
)
def test_bundled_recording_is_recognised_and_complete(
    name: str, shape: str, messages: int, skipped: dict[str, int]
) -> None:
    recording = open_recording(EXAMPLES / name)

    times_ms = [message.t_ms for message in recording]

    assert recording.format == shape
    assert len(times_ms) == messages
    assert times_ms == sorted(times_ms)
    assert recording.skipped == skipped


def test_every_bundled_message_has_a_native_topic_and_its_own_time() -> None:
    for path in EXAMPLES.glob("*.gz"):
        first = next(iter(open_recording(path)))
        assert parse_native(first.topic) is not None
        assert first.payload["t"] == first.t_ms


def test_bundled_recordings_fit_into_six_megabytes() -> None:
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*")) < 6e6


def test_match_has_23_objects_in_every_frame_and_the_reference_path_length() -> None:
    messages = list(open_recording(EXAMPLES / "match.csv.gz"))

    path = [(entry["x"], entry["y"]) for entry in objects_of(messages) if entry["id"] == "home_10"]
    length_m = sum(math.dist(a, b) for a, b in itertools.pairwise(path))

    assert Counter(len(message.payload["objects"]) for message in messages) == {23: 9_000}
    assert {b.t_ms - a.t_ms for a, b in itertools.pairwise(messages)} == {40}
    # The reference is printed with two decimals.
    assert length_m == pytest.approx(913.07, abs=0.005)


def test_match_names_sides_and_gives_the_ball_a_height() -> None:
    first = next(iter(open_recording(EXAMPLES / "match.csv.gz")))

    by_id = {entry["id"]: entry for entry in first.payload["objects"]}

    assert by_id["ball"] == {"id": "ball", "x": -0.02, "y": -0.41, "z": 0.11}
    assert by_id["home_10"] == {"id": "home_10", "x": -11.49, "y": 6.43, "team": "home"}


def test_crowd_is_the_reference_and_can_be_placed_at_the_gate() -> None:
    recording = open_recording(
        EXAMPLES / "crowd-bottleneck.txt.gz", ReadOptions(offset_m=(0.0, 44.0))
    )

    found = objects_of(list(recording))

    assert len(found) == 63_110
    assert len({entry["id"] for entry in found}) == 75
    assert found[0] == {"id": "p1", "x": 2.1569, "y": 46.659}


def test_footfall_has_one_source_a_sensor_and_the_published_counts() -> None:
    messages = list(open_recording(EXAMPLES / "footfall-melbourne.csv.gz"))

    by_source = Counter(message.topic.rsplit("/", 1)[1] for message in messages)
    top = max(messages, key=lambda message: message.payload["value"])

    assert by_source == {
        "footfall-4": 13_103,
        "footfall-5": 13_103,
        "footfall-6": 13_103,
        "footfall-7": 11_447,
        "footfall-9": 13_103,
        "footfall-14": 13_103,
    }
    assert top.payload == {
        "t": instant_ms(2013, 7, 24, 12),
        "quantity": "pedestrians",
        "value": 9820.0,
        "unit": "1/h",
    }


def test_known_series_know_their_quantity_and_unit() -> None:
    names = ("machine-temperature", "taxi-passengers", "yosemite-temperature")

    firsts = [next(iter(open_recording(EXAMPLES / f"{name}.csv.gz"))).payload for name in names]

    assert [(one["quantity"], one["unit"]) for one in firsts] == [
        ("temperature", "degF"),
        ("passengers", "persons"),
        ("temperature", "degC"),
    ]


# --- tracking -------------------------------------------------------------------------------

TRACKING = (
    "frame,ball_x,ball_y,ball_z,home_1_x,home_1_y,away_2_x,away_2_y,datetime\n"
    "1,0.5,1.5,0.1,-10,2,,,2020-01-01 10:00:00+00:00\n"
    "2,,,,-10.1,2,3,4,2020-01-01 10:00:00.040000+00:00\n"
)


def test_absent_player_and_absent_ball_are_left_out(write: Write) -> None:
    first, second = write(TRACKING)

    assert [entry["id"] for entry in first.payload["objects"]] == ["ball", "home_1"]
    assert [entry["id"] for entry in second.payload["objects"]] == ["home_1", "away_2"]


def test_parquet_reads_as_the_same_table_in_csv(write: Write, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = list(csv.DictReader(io.StringIO(TRACKING)))
    columns: dict[str, list[Any]] = {
        name: [float(row[name]) if row[name] else None for row in rows]
        for name in rows[0]
        if name != "datetime"
    }
    columns["frame"] = [1, 2]
    columns["datetime"] = [datetime.fromisoformat(row["datetime"]) for row in rows]
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.bin")

    assert list(open_recording(tmp_path / "t.bin")) == list(write(TRACKING))


def test_parquet_without_pyarrow_names_the_extra(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ConfigError, match=r"pip install '\.\[parquet\]'"):
        list(write(b"PAR1 and the rest"))


def test_damaged_parquet_is_a_config_error(write: Write) -> None:
    pytest.importorskip("pyarrow")

    with pytest.raises(ConfigError, match="reading recording"):
        list(write(b"PAR1 and the rest"))


def test_tracking_without_times_needs_the_frame_rate(write: Write) -> None:
    table = "frame,home_1_x,home_1_y\n0,1,2\n10,1,2\n"

    with pytest.raises(ConfigError, match="frames per second"):
        list(write(table))
    first, second = write(table, fps=10)
    assert second.t_ms - first.t_ms == 1000


def test_malformed_tracking_row_is_counted_not_fatal(write: Write) -> None:
    recording = write(TRACKING + "3,what,1,1,1,1,1,1,2020-01-01 10:00:00.08+00:00\n")

    assert len(list(recording)) == 2
    assert recording.skipped == {"malformed row": 1}


# --- trajectories ---------------------------------------------------------------------------


def test_trajectories_in_centimetres_come_by_frame_in_metres(write: Write) -> None:
    rows = "1 60 100 200 180\n1 61 110 200 180\n2 60 -50 0 170\n"

    first, second = write(rows, length_unit="cm", fps=16, epoch_ms=0)

    assert first.payload == {
        "t": 3750,
        "objects": [{"id": "p1", "x": 1.0, "y": 2.0}, {"id": "p2", "x": -0.5, "y": 0.0}],
    }
    assert second.t_ms == 3812


def test_header_may_state_centimetres_and_rate(write: Write) -> None:
    (only,) = write("# framerate: 16.00\n# id frame x/cm y/cm z/cm\n1\t0\t100\t50\t170\n")

    assert only.payload["objects"] == [{"id": "p1", "x": 1.0, "y": 0.5}]


@pytest.mark.parametrize(
    ("header", "says"),
    [("", "--fps 16"), ("# framerate: 25 fps\n", "--unit m or cm"), ("# x/m y/m\n", "--fps 16")],
)
def test_trajectories_without_unit_or_rate_say_which_option(
    write: Write, header: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        list(write(header + "1 60 100 200 180\n"))


# --- footfall and local time ----------------------------------------------------------------

FOOTFALL = "Date,Day_of_week,Hour,SensorID,SensorName,PedestrianCount\r\n"


def test_doubled_hour_is_its_first_pass_and_the_next_hour_two_later(write: Write) -> None:
    rows = "".join(f"07-Apr-2013,Sunday,{hour},4,Town Hall,{hour}\r\n" for hour in (1, 2, 3))

    times_ms = [message.t_ms for message in write(FOOTFALL + rows)]

    assert times_ms == [
        instant_ms(2013, 4, 6, 14),
        instant_ms(2013, 4, 6, 15),
        instant_ms(2013, 4, 6, 17),
    ]


def test_second_row_of_the_doubled_hour_is_its_second_pass(write: Write) -> None:
    rows = "07-Apr-2013,Sunday,2,4,A,10\r\n07-Apr-2013,Sunday,2,5,B,11\r\n" * 2

    found = [(m.t_ms, m.topic[-1]) for m in write(FOOTFALL + rows)]

    first, second = instant_ms(2013, 4, 6, 15), instant_ms(2013, 4, 6, 16)
    assert found == [(first, "4"), (first, "5"), (second, "4"), (second, "5")]


def test_hour_that_never_was_is_counted_not_sent(write: Write) -> None:
    recording = write(
        FOOTFALL + "".join(f"06-Oct-2013,Sunday,{hour},4,Town Hall,9\n" for hour in (1, 2, 3))
    )

    times_ms = [message.t_ms for message in recording]

    assert times_ms == [instant_ms(2013, 10, 5, 15), instant_ms(2013, 10, 5, 16)]
    assert recording.skipped == {"hour that never was": 1}


def test_malformed_footfall_row_is_counted(write: Write) -> None:
    recording = write(FOOTFALL + "07-Foo-2013,Sunday,2,4,A,10\n07-Apr-2013,Sunday,2,4,A\n")

    assert list(recording) == []
    assert recording.skipped == {"malformed row": 2}


# --- series ---------------------------------------------------------------------------------


def test_series_sorts_a_clock_set_back_and_keeps_both_readings(write: Write) -> None:
    rows = "timestamp,value\n2020-01-01 00:05:00,1\n2020-01-01 00:10:00,2\n2020-01-01 00:05:00,3\n"

    found = [(m.payload["value"], m.payload["quantity"]) for m in write(rows)]

    assert found == [(1.0, "value"), (3.0, "value"), (2.0, "value")]


def test_series_takes_quantity_unit_source_and_zone_from_the_options(write: Write) -> None:
    (only,) = write(
        "ds,y\n2020-07-01 12:00:00,5\n2020-07-01 13:00:00,\n",
        quantity="humidity",
        value_unit="%",
        source="h-1",
        venue="oval",
        time_zone="Australia/Melbourne",
    )

    assert only.topic == "matchday/oval/scalar/h-1"
    assert only.payload == {
        "t": instant_ms(2020, 7, 1, 2),
        "quantity": "humidity",
        "value": 5.0,
        "unit": "%",
    }


def test_unknown_time_zone_is_a_config_error(write: Write) -> None:
    with pytest.raises(ConfigError, match="Mars"):
        list(write("ds,y\n2020-07-01 12:00:00,5\n", time_zone="Mars/North"))


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_column_of_numbers_becomes_the_originals_messages(write: Write, end: str) -> None:
    recording = write(end.join(["Image", "1", "2.5", ""]), source="464fc87d3c5a", epoch_ms=0)

    first, second = recording

    assert recording.format == "column of numbers"
    assert (first.topic, first.payload) == (
        "Image",
        {"sensorId": "464fc87d3c5a", "Image": 1, "collectedAt": "1970-01-01 00:00:00"},
    )
    assert second.payload["Image"] == 2.5
    assert second.payload["collectedAt"] == "1970-01-01 00:00:01"


# --- native ---------------------------------------------------------------------------------


def test_native_recording_keeps_order_and_times(write: Write) -> None:
    late = '{"topic":"a/b","payload":{"t":"2020-01-01T00:00:05Z","v":1}}'
    early = f'{{"topic":"a/b","payload":{{"t":{instant_ms(2020, 1, 1)},"v":2}}}}'

    found = list(write(f"{late}\n{early}\n"))

    assert [(m.t_ms, m.payload["v"]) for m in found] == [
        (instant_ms(2020, 1, 1, 0, 0, 5), 1),
        (instant_ms(2020, 1, 1), 2),
    ]


@pytest.mark.parametrize(
    "payload",
    [b"SPO2 is: 97%", b"\xff\x00\xfe", b'{"v":NaN}', b'{"t":1,"v":1.50e3,\n"w":[1]}', b"42", b""],
)
def test_any_payload_survives_a_native_line(write: Write, payload: bytes) -> None:
    line = line_of("a/b", payload, arrived_ms=7_000_000_000_000)

    (message,) = write(line)

    assert line.count(b"\n") == 1
    assert message.t_ms == 7_000_000_000_000
    if isinstance(message.payload, bytes):
        assert message.payload == payload
    else:
        # Kept digit for digit, line breaks between tokens apart.
        assert payload.replace(b"\n", b" ") in line


def test_time_no_clock_can_have_meant_does_not_pace(write: Write) -> None:
    line = line_of("a/b", b'{"t":"2999-01-01T00:00:00Z"}', arrived_ms=1_600_000_000_000)

    (message,) = write(line)

    assert message.t_ms == 1_600_000_000_000


def test_recording_cut_off_by_a_kill_is_read_up_to_the_cut(write: Write) -> None:
    lines = b"".join(
        line_of("a", b'{"v":%d}' % index, arrived_ms=1_600_000_000_000) for index in range(5_000)
    )
    whole = gzip.compress(lines)

    recording = write(whole[: len(whole) // 2], "cut.jsonl.gz")
    found = list(recording)

    assert 1_000 < len(found) < 5_000
    assert [message.payload["v"] for message in found] == list(range(len(found)))
    assert recording.skipped["cut off"] == 1


def test_torn_last_line_is_counted(write: Write) -> None:
    recording = write('{"topic":"a","payload":1}\n{"topic":"a","pay')

    assert len(list(recording)) == 1
    assert recording.skipped == {"malformed row": 1}


# --- recognising ----------------------------------------------------------------------------


def test_unknown_content_is_refused_with_the_known_formats(write: Write) -> None:
    with pytest.raises(ConfigError, match="footfall CSV"):
        write("once upon a time\nthere was a file\n")


def test_missing_file_and_empty_recording_are_config_errors(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        open_recording(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="no message"):
        write("ds,y\n").span()


def test_span_is_that_of_all_messages_whatever_their_order(write: Write) -> None:
    lines = (b'{"t":1600000005000}', b'{"t":1600000001000}', b'{"t":1600000003000}')

    span = write(b"".join(line_of("a", line, arrived_ms=0) for line in lines)).span()

    assert (span.first_ms, span.last_ms, span.messages) == (1_600_000_001_000, 1_600_000_005_000, 3)


@pytest.mark.parametrize(
    "options", [{"fps": 0}, {"interval_s": math.nan}, {"venue": "a/b"}, {"offset_m": (0, math.inf)}]
)
def test_impossible_option_is_a_config_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ReadOptions(**options)
