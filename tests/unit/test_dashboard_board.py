"""The board of latest values: coalescing, expiry, zones, bounds."""

import random

import pytest

from matchday.clock import ManualClock
from matchday.dashboard import board as board_module
from matchday.dashboard.board import OBJECT_EXPIRY_S, Board
from matchday.dashboard.latest import Latest
from matchday.dashboard.rates import Rate
from matchday.domain.finding import Finding
from matchday.domain.reading import Count, Positions, Scalar, TrackedObject
from matchday.domain.venue import Pitch, Venue, Zone

T_MS = 1_700_000_000_000
SQUARE = Zone(id="Z", name="Square", polygon=((0, 0), (4, 0), (4, 5), (0, 5)), capacity=40)
GROUND = Venue(
    id="demo",
    name="Demo",
    pitch=Pitch(shape="rectangle", length_m=100, width_m=60),
    zones=(SQUARE,),
)


def make_board(clock=None) -> Board:
    return Board([GROUND], clock=clock or ManualClock())


def seen(*objects: TrackedObject, t_ms: int = T_MS, session: str = "one") -> Positions:
    return Positions(source="tags", t_ms=t_ms, objects=objects, venue="demo", session=session)


def metric(zone: str, values: dict[str, float]) -> Finding:
    return Finding(
        subject=zone,
        kind="crowd_metric",
        span_start_ms=T_MS,
        span_end_ms=T_MS + 10_000,
        model="zone-density/1",
        values=values,
        sensor="tags",
        venue="demo",
    )


def test_the_latest_position_between_two_ticks_wins():
    board = make_board()
    board.take_readings(
        [seen(TrackedObject("a", 1, 1)), seen(TrackedObject("a", 2.005, 3), t_ms=T_MS + 40)]
    )
    (frame,) = board.positions("demo").frames
    assert (frame.t_ms, frame.objects) == (T_MS + 40, [("a", 2.0, 3.0, None)])


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_leaves_the_board_as_its_readings_one_by_one(seed: int):
    rng = random.Random(seed)
    clock = ManualClock()
    together, apart = make_board(clock), make_board(clock)
    for _ in range(20):
        readings = [
            rng.choice(
                (
                    Scalar(
                        source=f"s{rng.randrange(3)}",
                        t_ms=T_MS + rng.randrange(50),
                        quantity=rng.choice(("heat", "noise")),
                        value=rng.random(),
                        session=rng.choice(("one", "one", "two")),
                    ),
                    Count(
                        source="gate",
                        t_ms=T_MS + rng.randrange(50),
                        zone="Z",
                        occupancy=rng.randrange(9),
                    ),
                    seen(TrackedObject(rng.choice("ab"), rng.random(), 1), t_ms=T_MS),
                )
            )
            for _ in range(rng.randrange(1, 30))
        ]
        together.take_readings(readings)
        for reading in readings:
            apart.take_readings([reading])
        clock.advance(0.3)
        assert together.sources() == apart.sources()
        one, other = together.changes().series, apart.changes().series
        assert sorted(one, key=lambda point: point.key) == sorted(
            other, key=lambda point: point.key
        )
        assert together.positions("demo") == apart.positions("demo")
        assert together.tiles("demo", clients=0, dropped=0) == apart.tiles(
            "demo", clients=0, dropped=0
        )


def test_a_tick_gives_only_what_moved_since_the_last():
    board = make_board()
    board.take_readings([seen(TrackedObject("a", 1, 1), TrackedObject("b", 1, 1))])
    board.positions("demo")
    board.take_readings([seen(TrackedObject("b", 2, 2), t_ms=T_MS + 40)])
    (frame,) = board.positions("demo").frames
    assert [row[0] for row in frame.objects] == ["b"]
    assert board.positions("demo").frames == []


def test_asking_for_everything_leaves_the_changes_to_the_next_tick():
    board = make_board()
    board.take_readings([seen(TrackedObject("a", 1, 1))])
    assert len(board.positions("demo", everything=True).frames) == 1
    assert len(board.positions("demo").frames) == 1


def test_an_older_position_never_replaces_a_newer_one():
    board = make_board()
    board.take_readings(
        [seen(TrackedObject("a", 2, 2)), seen(TrackedObject("a", 1, 1), t_ms=T_MS - 1)]
    )
    assert board.positions("demo").frames[0].objects[0][1] == 2.0


def test_a_new_session_forgets_the_objects_of_the_last_and_may_start_earlier():
    board = make_board()
    board.take_readings([seen(TrackedObject("old", 2, 2))])
    board.take_readings([seen(TrackedObject("new", 1, 1), t_ms=T_MS - 90_000, session="two")])
    (frame,) = board.positions("demo", everything=True).frames
    assert (frame.session, [row[0] for row in frame.objects]) == ("two", ["new"])


def test_an_object_not_seen_for_a_while_is_no_longer_counted():
    clock = ManualClock()
    board = make_board(clock)
    board.take_readings([seen(TrackedObject("gone", 1, 1), TrackedObject("stays", 1, 2))])
    clock.advance(OBJECT_EXPIRY_S + 0.1)
    board.take_readings([seen(TrackedObject("stays", 1, 2), t_ms=T_MS + 4_000)])
    assert board.tiles("demo", clients=0, dropped=0).objects == 1


def test_density_now_is_people_inside_by_the_area_and_the_ball_is_nobody():
    board = make_board()
    people = [TrackedObject(f"p{i}", 1 + i * 0.1, 2) for i in range(10)]
    board.take_readings([seen(*people, TrackedObject("ball", 2, 2), TrackedObject("out", 9, 9))])
    (zone,) = board.zones("demo")
    # 10 persons on 4 m x 5 m, by hand.
    assert (zone.persons, zone.density_per_m2, zone.basis) == (10, 0.5, "positions")


def test_a_counted_occupancy_fills_a_zone_that_nobody_tracks():
    board = make_board()
    board.take_readings([Count(source="cam", t_ms=T_MS, zone="Z", occupancy=30, venue="demo")])
    (zone,) = board.zones("demo")
    assert (zone.persons, zone.density_per_m2, zone.basis) == (30, 1.5, "count")


def test_a_zone_that_nothing_tells_about_has_no_density():
    (zone,) = make_board().zones("demo")
    assert (zone.persons, zone.density_per_m2, zone.basis, zone.window) == (None, None, None, None)


@pytest.mark.parametrize(
    "values",
    [
        {"frame_count": 9.0, "count_mean": 8.0, "count_max": 9.0, "density_mean_per_m2": 0.4,
         "density_max_per_m2": 0.45},
        {"count_mean": 8.0},
        {"density_per_m2": 0.4},
    ],
)  # fmt: skip
def test_a_final_window_shows_the_mean_density_whichever_number_is_given(values):
    board = make_board()
    board.take_findings([metric("Z", values)])
    window = board.zones("demo")[0].window
    assert window is not None
    assert (window.density_per_m2, window.persons) == (0.4, 8.0)


def test_series_are_named_as_analysis_names_them():
    board = make_board()
    board.take_readings(
        [
            Scalar(source="roof", t_ms=T_MS, quantity="temperature", value=21.5, unit="degC"),
            Count(source="gate-3", t_ms=T_MS, zone="gate-3", entered=4, left=1),
            Count(source="cam", t_ms=T_MS, zone="Z", occupancy=12, venue="demo"),
        ]
    )
    points = {point.key: point.value for point in board.changes().series}
    assert points == {
        "roof/temperature": 21.5,
        "gate-3/in": 4,
        "gate-3/out": 1,
        "cam/Z/occupancy": 12,
    }
    assert board.changes().series == []
    assert len(board.everything().series) == 4


def test_age_speaks_of_the_venues_positions_not_of_a_slower_sensor():
    board = make_board()
    board.take_readings([seen(TrackedObject("a", 1, 1))])
    board.take_readings([Scalar(source="ahead", t_ms=T_MS + 200_000, quantity="q", value=1)])
    assert board.tiles("demo", clients=0, dropped=0).newest_ms == T_MS


def test_more_sources_than_the_bound_forget_the_one_heard_longest_ago(monkeypatch):
    monkeypatch.setattr(board_module, "SOURCES_MAX", 3)
    board = make_board()
    for name in ("a", "b", "a", "c", "d"):
        board.take_readings([Scalar(source=name, t_ms=T_MS, quantity="q", value=1)])
    assert [source.source for source in board.sources().sources] == ["a", "c", "d"]


def test_list_of_sources_says_how_many_there_are_and_goes_on_after_any_name():
    board = make_board()

    def hear(*names: str) -> None:
        board.take_readings([Scalar(source=n, t_ms=T_MS, quantity="q", value=1) for n in names])

    def page(after: str) -> tuple[list[str], int, str | None]:
        found = board.sources(after=after, limit=2)
        return [one.source for one in found.sources], found.source_count, found.next

    hear("a", "c", "e", "g")
    assert page("") == (["a", "c"], 4, "c")
    # What comes in between moves nothing to a page that was read already, or twice.
    hear("b", "d")
    assert page("c") == (["d", "e"], 6, "e")
    assert page("e") == (["g"], 6, None)
    assert page("bb") == (["c", "d"], 6, "d")
    assert page("z") == ([], 6, None)


def test_the_rate_is_that_of_the_last_full_seconds():
    rate = Rate()
    for tick in range(25 * 10):
        rate.add(1, at_s=100 + tick / 25)
    assert rate.per_s(110.0) == 25.0
    assert rate.per_s(120.0) == 0.0


def test_the_rate_is_right_from_the_first_seconds_on():
    rate = Rate()
    for tick in range(26):
        rate.add(1, at_s=100.9 + tick / 25)
    assert rate.per_s(102.0) == pytest.approx(25, abs=3)  # seconds are counted whole


def test_while_nobody_looks_no_more_news_are_kept_than_objects(monkeypatch):
    monkeypatch.setattr(board_module, "OBJECTS_MAX", 3)
    board = make_board()
    for number in range(50):
        board.take_readings([seen(TrackedObject(f"visitor-{number}", 1, 1), t_ms=T_MS + number)])
    assert board._tracks["tags"].changed == {"visitor-47", "visitor-48", "visitor-49"}
    (frame,) = board.positions("demo").frames
    assert len(frame.objects) == 3


def test_news_of_a_value_that_made_room_are_forgotten_with_it():
    latest: Latest[int, str] = Latest(3)
    for number in range(50):
        latest.put(number, f"value {number}")
    assert sorted(latest.take_news()) == latest.values() == ["value 47", "value 48", "value 49"]
    assert latest.take_news() == []
    latest.put(48, "later")
    assert latest.take_news() == ["later"]
    assert latest.values() == ["value 47", "value 49", "later"]


def test_objects_expire_while_nobody_looks():
    clock = ManualClock()
    board = make_board(clock)
    for number in range(50):
        board.take_readings([seen(TrackedObject(f"visitor-{number}", 1, 1), t_ms=T_MS + number)])
        clock.advance(1.0)
    assert len(board._tracks["tags"].objects) <= 2 * OBJECT_EXPIRY_S
