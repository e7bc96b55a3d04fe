"""Of clients that leave nothing stays, however long the others go on."""

from __future__ import annotations

from bench.engine import Engine, Sequence, find_profile
from bench.workload.model import Segment


def ask(number: int, tokens: int) -> Sequence:
    return Sequence((Segment(number, 64),), tokens, 1_000_000 + number)


def test_those_who_left_wait_no_more() -> None:
    """They are not counted, nor kept, while the batch has no place for anybody."""
    engine = Engine(find_profile("h100-llama-8b", max_num_seqs=1))
    engine.submit(ask(0, 5000), 0.0)
    stays = ask(1, 10)
    engine.submit(stays, 0.0)
    for number in range(2, 102):
        now_s = 1.0 + number / 100
        sequence = ask(number, 10)
        engine.submit(sequence, now_s)
        left_s = now_s + (0.001 if number % 2 else 0.009)  # before or after the front end
        engine.advance(left_s)
        engine.abort(sequence, left_s)
        assert engine.snapshot().waiting == 1
    assert [*engine._batch.waiting] == [stays]
    assert not engine._incoming


def test_those_who_left_an_answer_are_not_kept_until_its_end() -> None:
    """Two thousand leave at the beginning of very long answers."""
    engine = Engine(find_profile("h100-llama-8b"))
    engine.submit(ask(0, 100_000), 0.0)
    for number in range(1, 2001):
        sequence = ask(number, 100_000)
        engine.submit(sequence, number / 10)
        engine.advance(number / 10 + 0.09)
        assert sequence.state == "decode"
        engine.abort(sequence, number / 10 + 0.09)
    assert len(engine._batch._decoding._ends) < 100
