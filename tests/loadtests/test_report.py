"""Tables, plot, history; and that the published pages say what docs/performance.json says."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loadtests import chart, history, report
from loadtests.figures import DIRECT, PROXY, SECTIONS, SNITUN, TOWLINE, Figure, each, figures_of
from loadtests.goals import MESSAGES
from loadtests.messages import measured
from tests.loadtests.runs import Samples, run

ROOT = Path(__file__).resolve().parents[2]
SAMPLES: Samples = {
    ("c32", DIRECT, "cpu_us"): (17.0, 18.0, 19.0),
    ("c32", DIRECT, "errors"): (0.0,),
    ("c32", TOWLINE, "cpu_us"): (61.0, 62.0, 70.0),
    ("c32", TOWLINE, "errors"): (2.0,),
    ("bulk_down", PROXY, "mb_s"): (900.0, 1000.0, 1100.0),
    ("bulk_down", TOWLINE, "mb_s"): (600.0, 650.0, 700.0),
    ("idle", SNITUN, "kib_per_tunnel"): (11.94,),
}


def test_a_table_has_a_row_a_path_with_spread_and_errors() -> None:
    text = report.tables(run(SAMPLES))
    assert "| towline | 62.0 | 61.0–70.0 | 2 |" in text
    assert "| nginx direct | 18.0 | 17.0–19.0 | 0 |" in text
    assert "| snitun | 11.9 | – |" in text  # one sample has no spread
    assert "| bulk down, of nginx's proxy rate | ≥ 0.75 × | 0.65 × | short by 13 % |" in text
    assert "Commit `abc1234`, 2026-01-31 12:00 UTC. Some CPU, 2 cores" in text


def test_parts_stand_beside_their_sum() -> None:
    made = run(SAMPLES)
    made["figures"]["c32"][TOWLINE]["cpu_us"] = Figure((62.0,), {"server": 40.0, "agent": 22.0}).to_json()
    assert "| towline | 62.0 | – | server 40.0 + agent 22.0 | 2 |" in report.tables(made)


MESSAGE_SAMPLES: Samples = {
    ("messages", MESSAGES, "messages_per_s"): (9000.0, 9500.0, 9100.0),
    ("messages", MESSAGES, "errors"): (0.0,),
    ("messages_way", "towline, 1,000 a second", "stored_p50_ms"): (14.0, 15.0, 16.0),
    ("messages_way", "towline, 1,000 a second", "stored_p99_ms"): (40.0, 41.0, 44.0),
    ("messages_way", "towline, 1,000 a second", "accepted_p50_ms"): (7.0, 8.0, 9.0),
    ("messages_way", "towline, 1,000 a second", "accepted_p99_ms"): (21.0, 22.0, 23.0),
    ("messages_way", "towline, 1,000 a second", "messages_per_s"): (990.0, 995.0, 999.0),
    ("messages_way", "towline, 1,000 a second", "errors"): (1.0,),
    ("messages_memory", "towline, bridge", "rss_mib"): (70.0, 71.0, 75.0),
    ("commands", MESSAGES, "p50_us"): (21000.0, 22000.0, 23000.0),
    ("commands", MESSAGES, "p99_us"): (48000.0, 60000.0, 61000.0),
    ("commands", MESSAGES, "errors"): (0.0,),
}


def test_the_message_side_has_its_tables_notes_and_goals() -> None:
    made = run(MESSAGE_SAMPLES)
    cost = Figure((100.0, 104.0, 101.0), {"bridge": 60.0, "consumer": 41.0})
    made["figures"]["messages"][MESSAGES]["message_us"] = cost.to_json()
    text = report.tables(made)
    for line in (
        f"| {MESSAGES} | 101.0 | 100.0–104.0 | bridge 60.0 + consumer 41.0 | 9100 | 9000–9500 | 0 |",
        "| towline, 1,000 a second | 15 | 14–16 | 41 | 40–44 | 8 | 7–9 | 22 | 21–23 | 995 | 990–999 | 1 |",
        "| towline, bridge | 71 | 70–75 |",
        f"| {MESSAGES} | 22000 | 21000–23000 | 60000 | 48000–61000 | 0 |",
        "| messages, from MQTT to rows | ≥ 12000 /s | 9100 /s | short by 24 % |",
        "| command, request to answer, p99 | ≤ 50 ms | 60.0 ms | short by 20 % |",
    ):
        assert line in text.splitlines()
    for section in ("messages", "messages_way", "messages_memory", "commands"):
        assert SECTIONS[section].note in text


def test_the_notes_name_the_rounds_that_are_driven() -> None:
    """The page's head counts the data plane's."""
    notes = {section: SECTIONS[section].note for section in ("messages", "messages_way", "commands")}
    assert measured.ROUNDS == 3
    assert (
        f"At most three rounds of {measured.FLOOD_S} s, embedded of {measured.EMBEDDED_FLOOD_S} s"
        in notes["messages"]
    )
    (slow, slow_s), (fast, fast_s) = measured.PACES.items()
    paces = f"At most three rounds of {slow_s} s with {slow:,} a second and of {fast_s} s with {fast:,}"
    assert paces in notes["messages_way"]
    assert f"At most three rounds of {measured.PINGS}." in notes["commands"]


def test_the_readme_s_table_leaves_out_what_was_not_measured() -> None:
    text = report.readme_table(run(SAMPLES))
    assert "| **towline** | tunnel | yes |" in text
    assert "62.0 / –" in text
    assert "haproxy" not in text
    assert "Of our own 2 goals for this run 0 are met" in text


def test_marks_are_replaced_and_missed() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.between_marks(page, "new") == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    with pytest.raises(ValueError, match="no marks"):
        report.between_marks("a page", "new")


def test_the_plot_is_svg_with_a_bar_a_path_inside_its_box() -> None:
    root = ElementTree.fromstring(report.bars(figures_of(run(SAMPLES))))
    name = "{http://www.w3.org/2000/svg}"
    bars = [one for one in root.iter(f"{name}rect") if "bar" in one.attrib.get("class", "")]
    assert len(bars) == 4
    assert sum("own" in one.attrib["class"] for one in bars) == 2
    width = float(root.attrib["width"])
    assert all(float(one.attrib["x"]) + float(one.attrib["width"]) < width for one in bars)
    assert "prefers-color-scheme: dark" in "".join(root.itertext())


def test_one_long_bar_does_not_hide_the_others() -> None:
    assert chart.scale([10.0, 12.0, 14.0]) == 14
    assert chart.scale([10.0, 12.0, 5000.0]) == 60
    assert chart.scale([0.0, 0.0]) == 1
    panel = chart.Panel("one", [("a", Figure((10.0,))), ("b", Figure((12.0,))), ("c", Figure((5000.0,)))], 0)
    assert "→ 5000" in chart.bars([panel], "a")


def test_history_has_one_line_a_commit_and_machine(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.append(path, run(SAMPLES, commit="one"))
    history.append(path, run(SAMPLES, commit="two"))
    history.append(path, run({("c32", TOWLINE, "cpu_us"): (50.0,)}, commit="one"))
    history.append(path, run(SAMPLES, commit="one", cpu="Another CPU"))
    history.append(path, run(SAMPLES, commit="three+"))  # a tree with changes
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["commit"] for line in lines] == ["two", "one", "one"]
    assert lines[1]["figures"] == {"c32/towline/cpu_us": 50.0}
    assert "c32/nginx direct/cpu_us" in lines[0]["figures"]
    assert not any(SNITUN in name for name in lines[0]["figures"])


def test_publishing_writes_every_page(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for page in ("README.md", "docs/performance.md"):
        (tmp_path / page).write_text(f"# Page\n{report.BEGIN}\n{report.END}\n")
    made = run(SAMPLES)
    report.publish(tmp_path, made)
    assert json.loads((tmp_path / "docs/performance.json").read_text()) == made
    assert (tmp_path / "docs/performance.svg").read_text().startswith("<svg")
    assert "| towline | 62.0 |" in (tmp_path / "docs/performance.md").read_text()
    assert "| **towline** |" in (tmp_path / "README.md").read_text()


def test_what_was_measured_stands_in_some_table() -> None:
    """A section or a metric that no table knows would not be shown, and nobody would miss it."""
    made = json.loads((ROOT / "docs" / "performance.json").read_text())
    for section, _, metric, _ in each(figures_of(made)):
        assert metric in SECTIONS[section].metrics, section


def test_the_published_pages_say_what_the_json_says() -> None:
    """README, tables and plot are `make bench`'s; who edits a figure by hand finds this."""
    made = json.loads((ROOT / "docs" / "performance.json").read_text())
    for page, block in (
        ("README.md", report.readme_table(made)),
        ("docs/performance.md", report.tables(made)),
    ):
        text = (ROOT / page).read_text()
        assert report.between_marks(text, block) == text, page
    assert (ROOT / "docs" / "performance.svg").read_text() == report.bars(figures_of(made))
