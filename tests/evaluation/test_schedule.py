"""The cyclic schedule against the paper's formula (Appendix D.4)."""

from __future__ import annotations

from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmd_cli.errors import ConfigError
from lmd_cli.evaluation.schedule import Schedule, auto_stride
from lmd_cli.evaluation.walk import walk


class Marker:
    """Stands for an encoding; remembers which sample it is."""

    def __init__(self, index: int):
        self.index = index


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Any schedule in which no sample is its own partner."""
    count = draw(st.integers(1, 6))
    samples = draw(st.integers(count + 1, 60))
    strides = [s for s in range(1, 80) if all((s * m) % samples for m in range(1, count + 1))]
    return Schedule(samples, draw(st.sampled_from(strides)), count)


@given(schedules())
def test_every_sample_is_visited_once_with_the_papers_partners(schedule: Schedule) -> None:
    seen = []
    for visit in walk(schedule, lambda i, keep: Marker(i), 0, schedule.samples):
        k = visit.sample.index
        seen.append(k)
        expected = [
            (k + schedule.stride * m) % schedule.samples for m in range(1, schedule.count + 1)
        ]
        assert [p.index for p in visit.partners] == expected
    assert sorted(seen) == list(range(schedule.samples))


@given(schedules(), st.data())
def test_an_arc_encodes_its_samples_and_a_halo(schedule: Schedule, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, schedule.samples - 1))
    last = data.draw(st.integers(first + 1, schedule.samples))
    calls: list[int] = []

    def encode(index: int, keep: bool) -> Marker:
        calls.append(index)
        return Marker(index)

    visits = list(walk(schedule, encode, first, last))
    arcs = list(schedule.arcs(first, last))
    assert [v.position for v in visits] == list(range(first, last))
    assert len(calls) == (last - first) + schedule.count * len(arcs)


def test_the_published_protocol_is_one_cycle_of_6019_samples() -> None:
    schedule = Schedule.resolve(6019, 500, 12)
    calls: list[int] = []
    positions = sum(
        1 for _ in walk(schedule, lambda i, keep: calls.append(i) or Marker(i), 0, 6019)
    )
    assert schedule.length == 6019
    assert positions == 6019
    assert len(calls) == 6019 + 12


@given(st.integers(1, 20), st.integers(0, 300))
def test_auto_stride_is_the_largest_coprime_that_fits(count: int, more: int) -> None:
    samples = count + 1 + more
    stride = auto_stride(samples, count)
    limit = (samples - 1) // count
    assert stride == max(s for s in range(1, limit + 1) if gcd(s, samples) == 1)
    Schedule(samples, stride, count)


def test_auto_at_the_published_size_gives_501_but_500_is_stated() -> None:
    assert auto_stride(6019, 12) == 501


def test_too_few_samples_say_how_many_are_needed() -> None:
    with pytest.raises(ConfigError, match=r"only 12 samples; at least 13 are needed"):
        Schedule(12, 1, 12)
    with pytest.raises(ConfigError, match=r"at least 13 are needed"):
        auto_stride(12, 12)


def test_a_sample_never_replaces_itself() -> None:
    with pytest.raises(ConfigError, match=r"stride 5 x 4 is a multiple of the 20 samples"):
        Schedule(20, 5, 12)
