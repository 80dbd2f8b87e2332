"""Workers that are started before there is work for them."""

import loky

from tlens_trust.worker_pool import start_workers, worker_pool


def test_workers_have_imported_what_was_asked_and_are_the_ones_that_work_is_given_to():
    imported = "'colorsys' in __import__('sys').modules"
    assert not worker_pool(1).submit(eval, imported).result()
    start_workers(1, modules=["colorsys"])
    assert worker_pool(1).submit(eval, imported).result()


def test_where_no_process_can_start_nothing_is_raised_yet(monkeypatch):
    asked = []

    def refuse(**options):
        asked.append(options["max_workers"])
        raise OSError("no processes here")

    monkeypatch.setattr(loky, "get_reusable_executor", refuse)
    start_workers(2, modules=["colorsys"])
    assert asked == [2]


def test_no_workers_are_started_where_none_are_asked_for(monkeypatch):
    monkeypatch.setattr(loky, "get_reusable_executor", lambda **options: 1 / 0)
    start_workers(0, modules=["colorsys"])
