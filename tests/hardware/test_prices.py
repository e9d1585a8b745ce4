"""The price book: figures, the user's own file before it, and what a file is refused for."""

import json
import os

import pytest

from neuronbert.errors import InputError, UsageError
from neuronbert.hardware import cores, prices

FIGURES = {
    "inf1.xlarge": 0.228, "inf1.2xlarge": 0.362, "inf1.6xlarge": 1.18, "inf1.24xlarge": 4.721,
    "g4dn.xlarge": 0.526, "g4dn.4xlarge": 1.204, "g5.4xlarge": 1.624,
    "c5.xlarge": 0.17, "c5.24xlarge": 4.08, "m5.xlarge": 0.192,
    "g4dn.2xlarge": 0.752, "g4dn.8xlarge": 2.176, "g4dn.12xlarge": 3.912, "g4dn.16xlarge": 4.352, "g4dn.metal": 7.824,
    "g5.xlarge": 1.006, "g5.2xlarge": 1.212, "g5.8xlarge": 2.448, "g5.12xlarge": 5.672, "g5.16xlarge": 4.096,
    "g5.24xlarge": 8.144, "g5.48xlarge": 16.288,
    "g6.xlarge": 0.8048, "g6.2xlarge": 0.9776, "g6.4xlarge": 1.3232, "g6.8xlarge": 2.0144, "g6.12xlarge": 4.6016,
    "g6.16xlarge": 3.3968, "g6.24xlarge": 6.6752, "g6.48xlarge": 13.3504,
    "g6e.xlarge": 1.861, "g6e.2xlarge": 2.24208, "g6e.4xlarge": 3.00424, "g6e.8xlarge": 4.52856,
    "g6e.12xlarge": 10.49264, "g6e.16xlarge": 7.57719, "g6e.24xlarge": 15.06559, "g6e.48xlarge": 30.13118,
    "p4d.24xlarge": 21.957642, "p5.4xlarge": 6.88, "p5.48xlarge": 55.04, "p5en.48xlarge": 63.296,
}  # fmt: skip


def price_file(tmp_path, usd_per_hour, **changes):
    one = {"region": "eu-west-1", "date": "2026-01", "source": "our contract", "usd_per_hour": usd_per_hour}
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"schema_version": 1, "lists": [{**one, **changes}]}))
    return path


def test_the_shipped_figures():
    book = prices.load_prices()
    assert {name: book.price(name).usd_per_hour for name in book.names} == FIGURES
    assert all(book.price(name).region == "us-east-1" and book.price(name).date for name in book.names)


def test_an_inf1_size_costs_what_the_book_says():
    for name, instance in cores.INSTANCE_TYPES.items():
        assert instance.prices == prices.shipped_prices().history(name)


# Throughput and dollars per million of the blog's rows, at the prices of 2021 that they imply.
@pytest.mark.parametrize(
    "name, throughput, published",
    [("inf1.xlarge", 245, 0.42), ("inf1.xlarge", 291, 0.35), ("inf1.6xlarge", 974, 0.54), ("inf1.6xlarge", 1793, 0.30),
     ("inf1.xlarge", 985, 0.10), ("inf1.6xlarge", 3880, 0.14), ("inf1.6xlarge", 2302, 0.23)],
)  # fmt: skip
def test_dollars_per_million_are_the_published_ones(name, throughput, published):
    assert prices.shipped_prices().history(name)[1].per_million(throughput) == pytest.approx(published, abs=0.006)


def test_every_figure_can_say_price_region_and_date():
    sentence = prices.shipped_prices().price("inf1.xlarge").sentence()
    assert all(part in sentence for part in ("0.228 USD/h", "us-east-1", "2024-09"))


def test_a_file_goes_before_the_shipped_book_and_leaves_the_rest(tmp_path):
    book = prices.load_prices(price_file(tmp_path, {"inf1.xlarge": 0.15, "this machine": 0.05}))
    assert book.price("inf1.xlarge") == (0.15, "eu-west-1", "2026-01", "our contract")
    assert book.history("inf1.xlarge")[1:] == prices.shipped_prices().history("inf1.xlarge")
    assert book.price("this machine").usd_per_hour == 0.05
    assert book.price("inf1.6xlarge") == prices.shipped_prices().price("inf1.6xlarge")


def test_an_unknown_instance_in_a_file_is_named_beside_the_known_ones(tmp_path):
    with pytest.raises(InputError, match=r"'inf1\.3xlarge'.*\n.*inf1\.2xlarge.*c5\.xlarge"):
        prices.load_prices(price_file(tmp_path, {"inf1.3xlarge": 1.0}))


def test_asking_for_an_instance_without_a_price_names_those_that_have_one():
    with pytest.raises(UsageError, match=r"'p3.2xlarge'.*inf1\.xlarge.*\n.*--prices"):
        prices.shipped_prices().price("p3.2xlarge")


@pytest.mark.parametrize("price", [0, -1, "0.2", None, True, 1e300])
def test_a_price_that_is_no_price_is_refused(tmp_path, price):
    with pytest.raises(InputError, match=r"lists\[0\].usd_per_hour.* is .*, and must be (a number|at (least|most) 1)"):
        prices.load_prices(price_file(tmp_path, {"inf1.xlarge": price}))


@pytest.mark.parametrize("name", ["region", "date", "source"])
def test_a_price_without_place_date_or_source_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=name):
        prices.load_prices(price_file(tmp_path, {"inf1.xlarge": 1}, **{name: ""}))


@pytest.mark.parametrize(
    "text, why",
    [("{", "no JSON"), ("[]", "not a JSON object"), ('{"schema_version": NaN}', "NaN"),
     ('{"schema_version": 2, "lists": []}', "schema_version is 2"),
     ('{"schema_version": 1, "lists": [3]}', "must be an object"), ('{"schema_version": 1}', "lists")],
)  # fmt: skip
def test_a_file_of_another_form_is_refused_with_an_example(tmp_path, text, why):
    path = tmp_path / "prices.json"
    path.write_text(text)
    with pytest.raises(InputError, match=why) as caught:
        prices.load_prices(path)
    assert "usd_per_hour" in caught.value.hint


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="there is no file .*nowhere.json"):
        prices.load_prices(tmp_path / "nowhere.json")


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a named pipe, not a file"):
        prices.load_prices(tmp_path / "pipe")
