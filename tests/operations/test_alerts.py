"""Prometheus' own program reads the rules, fires each of them, and fires none for a site that is well."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml

from gateway.keys.authority import load_authority
from gateway.metrics import gateway_metrics
from ingest.app import Ingest
from ingest.metrics import Metrics as IngestMetrics
from runtime.certificates import CertificateWatch
from runtime.event_log.interface import LogUnavailableError
from runtime.metrics import Registry
from runtime.tasks import TaskOwner
from testbed import ops
from testbed.gateways import Gateways
from testbed.mosquitto import Mosquitto
from testbed.processes import ROOT, short_folder, started
from testbed.waiting import eventually
from tests.ingest.conftest import Site
from tests.ingest.devices import LiveDevice
from tests.ingest.world import MemoryLog, until
from tests.mqtt_link.clients import Clients
from tests.operations.alarms import (
    MINUTES,
    RULES,
    alarms,
    described,
    expects,
    judged,
    promtool,
    rules,
    scraped,
)
from towline import documents

SCRAPES = ROOT / "infra/prometheus/prometheus.yml"
GUESSES = 52
SHARES = 5  # all in one would not show which series fires which; one for each takes ten seconds more

_METRIC = re.compile(r"\b(towline_\w+)(?:\{([^}]*)\})?")
_BY_NAME = re.compile(r'__name__=~"([^"]+)"')
_BY = re.compile(r"\bby \(([^)]*)\)")
_MATCHER = re.compile(r'(\w+)(?:=~|!~|!=|=)"')

pytestmark = pytest.mark.database  # and Prometheus' program: not for test-fast

# Series a minute, in promtool's notation (first+step x times). A site that is well, and busy.
IDLE, BUSY = f"0x{MINUTES}", f"0+600x{MINUTES}"
ONE = f"1x{MINUTES}"
GATEWAY, NODE, INGEST = 'instance="gateway:8084"', 'instance="node-a:8086"', 'instance="ingest-0:8087"'
HEALTHY = {
    'up{job="towline-gateway",instance="gateway:8084"}': ONE,
    'up{job="towline-ingest",instance="ingest-0:8087"}': ONE,
    f'towline_gateway_breaker_open{{dependency="postgres",{GATEWAY}}}': IDLE,
    f'towline_gateway_requests_total{{listener="public",status="200",{GATEWAY}}}': BUSY,
    f'towline_gateway_requests_total{{listener="public",status="503",{GATEWAY}}}': f"0+6x{MINUTES}",
    f'towline_requests_total{{class="2xx",{NODE}}}': BUSY,
    f'towline_requests_total{{class="5xx",{NODE}}}': f"0+60x{MINUTES}",
    f"towline_feed_fresh{{{NODE}}}": ONE,
    f"towline_tunnels{{{NODE}}}": f"1000x{MINUTES}",
    f'towline_certificate_expires_in_seconds{{listener="visitors",{NODE}}}': f"2592000x{MINUTES}",
    f'towline_certificate_reloads_total{{listener="visitors",outcome="refused",{NODE}}}': IDLE,
    f'towline_gateway_logins_total{{result="ok",{GATEWAY}}}': BUSY,
    f'towline_gateway_logins_total{{result="wrong",{GATEWAY}}}': f"0+2x{MINUTES}",
    f'towline_gateway_links_redeemed_total{{result="ok",{GATEWAY}}}': BUSY,
    f'towline_gateway_links_redeemed_total{{result="link_used",{GATEWAY}}}': f"0+1x{MINUTES}",
    f'towline_tunnel_handshakes_total{{outcome="ready",{NODE}}}': BUSY,
    f'towline_tunnel_handshakes_total{{outcome="auth_failed",{NODE}}}': f"0+1x{MINUTES}",
    f"towline_foreign_origin_total{{{NODE}}}": IDLE,
    f"towline_gateway_audit_broken{{{GATEWAY}}}": IDLE,
    f"towline_gateway_audit_heads_away{{{GATEWAY}}}": IDLE,
    f"towline_gateway_missing_total{{{GATEWAY}}}": IDLE,
    f"towline_gateway_log_away{{{GATEWAY}}}": IDLE,
    f'towline_gateway_log_age_seconds{{topic="up",{GATEWAY}}}': ONE,
    f'towline_gateway_log_lag{{topic="up",{GATEWAY}}}': f"1000x{MINUTES}",
    f'towline_gateway_dead_letters_total{{reason="store_refused",{GATEWAY}}}': IDLE,
    f'towline_gateway_dead_letters_total{{reason="wrong_place",{GATEWAY}}}': f"0+1x{MINUTES}",
    f'towline_gateway_messages_total{{outcome="stored",{GATEWAY}}}': BUSY,
    f"towline_gateway_parts_ahead_days{{{GATEWAY}}}": f"7x{MINUTES}",
    # It has just started, and the database is large.
    f"towline_gateway_database_bytes{{{GATEWAY}}}": f"0x{MINUTES - 41} 80000000000+1000000x40",
    f"towline_ingest_broker_connected{{{INGEST}}}": ONE,
    f"towline_ingest_append_failed_total{{{INGEST}}}": IDLE,
    f"towline_ingest_given_up_total{{{INGEST}}}": IDLE,
    f"towline_ingest_paused{{{INGEST}}}": IDLE,
    f"towline_ingest_gaps_total{{{INGEST}}}": f"0+6x{MINUTES}",
    f"towline_ingest_parts_failing{{{INGEST}}}": IDLE,
    f'towline_ingest_left_total{{why="rate",{INGEST}}}': f"0+6x{MINUTES}",
    f'towline_ingest_kicks_total{{outcome="failed",{INGEST}}}': IDLE,
    f"towline_ingest_crl_age_seconds{{{INGEST}}}": f"40000x{MINUTES}",
    f'towline_ingest_broker_refused_total{{what="publish",{INGEST}}}': f"0+1x{MINUTES}",
    f"towline_gateway_log_stuck{{{GATEWAY}}}": IDLE,
    f"towline_gateway_log_full_total{{{GATEWAY}}}": IDLE,
    f"towline_gateway_dead_letters_left_out_total{{{GATEWAY}}}": IDLE,
    f"towline_gateway_downlink_connected{{{GATEWAY}}}": ONE,
    f'towline_gateway_commands_total{{state="succeeded",{GATEWAY}}}': BUSY,
    f'towline_gateway_commands_total{{state="timed_out",{GATEWAY}}}': f"0+6x{MINUTES}",
    'towline_agent_outbox_dropped{instance="d"}': f"7x{MINUTES}",
    'towline_agent_outbox_entries{instance="d"}': f"3x{MINUTES}",
    'towline_agent_messages_accepted_total{instance="d"}': BUSY,
    'towline_agent_certificate_expires_seconds{instance="d"}': f"5184000x{MINUTES}",  # time begins at 0
}
# What is different when the alarm is to be heard; two hours are well before it.
_BEFORE, _AFTER = MINUTES - 60, 60
SICK = {
    "TowlineProcessDown": {'up{job="towline-gateway",instance="gateway:8084"}': IDLE},
    "TowlineStoreAway": {f'towline_gateway_breaker_open{{dependency="postgres",{GATEWAY}}}': ONE},
    "TowlineServerErrors": {
        f'towline_gateway_requests_total{{listener="public",status="503",{GATEWAY}}}': f"0+60x{MINUTES}"
    },
    "TowlineVisitorErrors": {f'towline_requests_total{{class="5xx",{NODE}}}': f"0+300x{MINUTES}"},
    "TowlineFeedNotHeard": {f"towline_feed_fresh{{{NODE}}}": IDLE},
    "TowlineTunnelsLost": {f"towline_tunnels{{{NODE}}}": f"1000x{MINUTES - 20} 400x20"},
    "TowlineCertificateExpires": {
        f'towline_certificate_expires_in_seconds{{listener="visitors",{NODE}}}': f"864000x{MINUTES}"
    },
    "TowlineCertificateRefused": {
        f'towline_certificate_reloads_total{{listener="visitors",outcome="refused",{NODE}}}': f"0+1x{MINUTES}"
    },
    "TowlinePasswordsGuessed": {
        f'towline_gateway_logins_total{{result="wrong",{GATEWAY}}}': f"0+15x{MINUTES}"
    },
    "TowlineLinksGuessed": {
        f'towline_gateway_links_redeemed_total{{result="link_used",{GATEWAY}}}': f"0+15x{MINUTES}"
    },
    "TowlineDevicesRefused": {
        f'towline_tunnel_handshakes_total{{outcome="auth_failed",{NODE}}}': f"0+10x{MINUTES}"
    },
    "TowlineForeignPages": {f"towline_foreign_origin_total{{{NODE}}}": f"0+5x{MINUTES}"},
    "TowlineAuditBroken": {f"towline_gateway_audit_broken{{{GATEWAY}}}": ONE},
    "TowlineAuditHeadsNotKept": {f"towline_gateway_audit_heads_away{{{GATEWAY}}}": ONE},
    "TowlineMessagesLost": {f"towline_gateway_missing_total{{{GATEWAY}}}": f"0x{_BEFORE} 1x{_AFTER}"},
    "TowlineLogAway": {f"towline_gateway_log_away{{{GATEWAY}}}": ONE},
    "TowlineMessagesLate": {f'towline_gateway_log_age_seconds{{topic="up",{GATEWAY}}}': f"61x{MINUTES}"},
    "TowlineMessagesPileUp": {f'towline_gateway_log_lag{{topic="up",{GATEWAY}}}': f"100001x{MINUTES}"},
    "TowlineRecordsRefused": {
        f'towline_gateway_dead_letters_total{{reason="store_refused",{GATEWAY}}}': f"0x{_BEFORE} 1x{_AFTER}"
    },
    "TowlineDeadLetters": {
        f'towline_gateway_dead_letters_total{{reason="wrong_place",{GATEWAY}}}': f"0+10x{MINUTES}"
    },
    "TowlineDatabaseGrows": {
        f"towline_gateway_database_bytes{{{GATEWAY}}}": f"80000000000+60000000x{MINUTES}"
    },
    "TowlineHistoryRunsOut": {f"towline_gateway_parts_ahead_days{{{GATEWAY}}}": f"4x{MINUTES}"},
    "TowlineBrokerAway": {f"towline_ingest_broker_connected{{{INGEST}}}": IDLE},
    "TowlineAppendsFail": {f"towline_ingest_append_failed_total{{{INGEST}}}": f"0+1x{MINUTES}"},
    "TowlineMessagesGivenUp": {f"towline_ingest_given_up_total{{{INGEST}}}": f"0+1x{MINUTES}"},
    "TowlineIngestHeldBack": {f"towline_ingest_paused{{{INGEST}}}": ONE},
    "TowlineGaps": {f"towline_ingest_gaps_total{{{INGEST}}}": f"0+90x{MINUTES}"},
    "TowlineConsumerStuck": {f"towline_gateway_log_stuck{{{GATEWAY}}}": ONE},
    "TowlineLogFull": {f"towline_gateway_log_full_total{{{GATEWAY}}}": f"0+1x{MINUTES}"},
    "TowlineDeadLettersLeftOut": {
        f"towline_gateway_dead_letters_left_out_total{{{GATEWAY}}}": f"0+1x{MINUTES}"
    },
    "TowlinePartSick": {f"towline_ingest_parts_failing{{{INGEST}}}": ONE},
    "TowlineDevicesTooLoud": {f'towline_ingest_left_total{{why="rate",{INGEST}}}': f"0+900x{MINUTES}"},
    "TowlineRevokedStillConnected": {
        f'towline_ingest_kicks_total{{outcome="failed",{INGEST}}}': f"0+1x{MINUTES}"
    },
    "TowlineRevocationListOld": {f"towline_ingest_crl_age_seconds{{{INGEST}}}": f"180000x{MINUTES}"},
    "TowlineBrokerRefuses": {
        f'towline_ingest_broker_refused_total{{what="publish",{INGEST}}}': f"0+10x{MINUTES}"
    },
    "TowlineNoWayToDevices": {f"towline_gateway_downlink_connected{{{GATEWAY}}}": IDLE},
    "TowlineCommandsUnanswered": {
        f'towline_gateway_commands_total{{state="succeeded",{GATEWAY}}}': f"0+5x{MINUTES}"
    },
    "TowlineDeviceLosesMessages": {'towline_agent_outbox_dropped{instance="d"}': f"7+1x{MINUTES}"},
    "TowlineDeviceNotHeard": {'towline_agent_messages_accepted_total{instance="d"}': f"7x{MINUTES}"},
    "TowlineDeviceCertificateEnds": {
        'towline_agent_certificate_expires_seconds{instance="d"}': f"864000x{MINUTES}"
    },
}


SHOWN = {
    line for _, registry in documents.METRICS for line in registry().render().decode().splitlines()
}  # by processes that have just begun


def test_the_files_are_read_by_prometheus() -> None:
    for words in (("check", "rules", str(RULES)), ("check", "config", "--syntax-only", str(SCRAPES))):
        done = promtool(*words)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alarm_is_heard_when_it_should_be_and_no_other(tmp_path: Path) -> None:
    names = [rule["alert"] for rule in rules()]
    assert sorted(SICK) == sorted(names)
    tests = [expects([], HEALTHY)]
    for share in (names[n::SHARES] for n in range(SHARES)):
        sick = {series: values for name in share for series, values in SICK[name].items()}
        assert len(sick) == sum(len(SICK[name]) for name in share), "they would hide each other"
        tests.append(expects(share, HEALTHY | sick))
    assert judged(tmp_path, *tests) == ""


def test_what_is_expected_wrongly_is_found(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    assert "TowlineFeedNotHeard" in judged(tmp_path, expects([], HEALTHY | SICK["TowlineFeedNotHeard"]))
    assert "TowlineFeedNotHeard" in judged(tmp_path, expects(["TowlineFeedNotHeard"], HEALTHY))


def test_rules_ask_for_metrics_and_labels_that_exist() -> None:
    metrics = described()
    for rule in rules():
        name, expression = rule["alert"], rule["expr"]
        for pattern in _BY_NAME.findall(expression):
            assert len([metric for metric in metrics if re.fullmatch(pattern, metric)]) > 1, name
        asked = _METRIC.findall(_BY_NAME.sub("", expression))
        known = {"job", "instance", "listener"}.union(*(metrics[metric].labels for metric, _ in asked))
        told = {label.strip() for labels in _BY.findall(expression) for label in labels.split(",")}
        assert told <= known, f"{name}: no metric has {told - known}"
        for metric, labels in asked:
            assert metric in metrics, f"{name}: no process counts {metric}"
            unknown = set(_MATCHER.findall(labels)) - {*metrics[metric].labels, "job", "instance"}
            assert not unknown, f"{name}: {metric} has no label {unknown}"


def test_what_alarms_count_is_shown_before_it_happens() -> None:
    """Prometheus sees no increase in a series that begins at 1. But for certificates: see below."""
    for rule in rules():
        if "increase" not in rule["expr"] or "certificate" in rule["expr"]:
            continue
        for series in SICK[rule["alert"]]:
            name, _, labels = series.rstrip("}").partition("{")
            wanted = ",".join(label for label in labels.split(",") if not label.startswith("instance="))
            assert f"{name}{{{wanted}}} 0" in SHOWN or (not wanted and f"{name} 0" in SHOWN), series


def lose(registry: Registry) -> Callable[[], None]:
    return gateway_metrics(registry).missing.inc


def refuse(registry: Registry) -> Callable[[], None]:
    metrics = gateway_metrics(registry)
    return lambda: metrics.dead_letters.labels("store_refused").inc()


def fail_to_kick(registry: Registry) -> Callable[[], None]:
    metrics = IngestMetrics(registry)
    return lambda: metrics.kicks.labels("failed").inc()


@pytest.mark.parametrize(
    ("name", "process", "job"),
    [
        ("TowlineMessagesLost", lose, "towline-gateway"),
        ("TowlineRecordsRefused", refuse, "towline-gateway"),
        ("TowlineRevokedStillConnected", fail_to_kick, "towline-ingest"),
    ],
)
def test_the_first_event_of_a_new_process_is_heard(
    name: str, process: Callable[[Registry], Callable[[], None]], job: str, tmp_path: Path
) -> None:
    registry = Registry()
    event = process(registry)
    new = scraped(registry.render().decode(), job)
    event()
    assert alarms(tmp_path, new, scraped(registry.render().decode(), job)) == {name}


def test_the_first_certificate_that_cannot_serve_is_heard(tmp_path: Path) -> None:
    authority = load_authority(tmp_path, "server", "Test server", time.time())
    shown = authority.issue_server("node", ["localhost"], time.time())
    certificate, key = tmp_path / "node.crt", tmp_path / "node.key"
    certificate.write_bytes(shown.certificate_pem())
    key.write_bytes(shown.key_pem())
    registry = Registry()
    watch = CertificateWatch(registry, wall=time.time)
    watch.add("visitors", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)
    new = scraped(registry.render().decode(), "towline-node")
    certificate.write_text("broken off")
    watch.reload()
    assert "TowlineCertificateRefused" in alarms(
        tmp_path, new, scraped(registry.render().decode(), "towline-node")
    )


@pytest.mark.parametrize(
    "series",
    [f"towline_ingest_append_failed_total{{{INGEST}}}", f"towline_gateway_log_full_total{{{GATEWAY}}}"],
)
def test_a_restart_that_fails_some_is_not_heard(series: str, tmp_path: Path) -> None:
    assert alarms(tmp_path, {series: 0.0}, {series: 50.0}) == set()
    assert len(alarms(tmp_path, {series: 0.0}, {series: 50.0}, goes_on=True)) == 1


def test_each_alarm_says_how_bad_it_is_and_is_in_the_runbook() -> None:
    runbook = (ROOT / "docs/runbook.md").read_text()
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
        assert f"| `{rule['alert']}` |" in runbook


def test_every_job_that_rules_name_is_scraped() -> None:
    jobs = {job["job_name"] for job in yaml.safe_load(SCRAPES.read_text())["scrape_configs"]}
    assert jobs == {"towline-gateway", "towline-consumer", "towline-node", "towline-ingest"}
    assert all(re.fullmatch("towline-.+", job) for job in jobs)


def test_guessed_passwords_and_a_killed_database_are_heard(tmp_path: Path) -> None:
    """From a real gateway's own figures: brute force and an outage (J3)."""
    with short_folder("alerts") as folder, started(Gateways(folder)) as gateways:
        port = gateways.ports[0].ops

        def figures() -> dict[str, float]:
            return scraped(ops.ask(port, "/metrics").text, "towline-gateway")

        well = figures()
        assert alarms(tmp_path, well, well) == set()
        guesser = gateways.person()
        for _ in range(GUESSES):
            answer = guesser.http.post("/v1/login", json={"username": "admin", "password": "letmein"})
            assert answer.status_code in {401, 429}
        guessed = figures()
        assert alarms(tmp_path, well, guessed) == {"TowlinePasswordsGuessed"}
        gateways.kill_database()
        eventually("it is given up", lambda: ops.metric(port, "towline_gateway_breaker_open"))
        assert "TowlineStoreAway" in alarms(tmp_path, guessed, figures())


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    with short_folder("alerts") as folder, started(Mosquitto(folder)) as broker:
        async with Clients(broker) as clients:
            yield Site(broker, clients, tmp_path)


async def test_a_log_that_is_away_and_a_killed_broker_are_heard(site: Site, tmp_path: Path) -> None:
    """From a real ingest's own figures, at a real Mosquitto."""

    def figures(ingest: Ingest) -> dict[str, float]:
        return scraped(ingest.registry.render().decode(), "towline-ingest")

    log = MemoryLog()
    async with site.bridge(log, append_s=0.5) as ingest:
        device = LiveDevice(site.clients, "d_aaaaaaaaaaaaaaaa")
        await device.say(10)
        well = figures(ingest)
        assert alarms(tmp_path, well, well) == set()
        log.fault = LogUnavailableError("away")
        saying = TaskOwner("device").start(device.say(10), "say")
        await until("given up", lambda: ingest.metrics.given_up.value > 0)
        away = figures(ingest)
        assert alarms(tmp_path, well, away, goes_on=True) >= {"TowlineAppendsFail", "TowlineMessagesGivenUp"}
        # A gateway that restarted, with the log in its tables: it is over, and what is left was said.
        assert "TowlineAppendsFail" not in alarms(tmp_path, well, away)
        log.fault = None
        await saying
        await until("connected again", lambda: ingest.bridge.connected)
        well = figures(ingest)
        assert isinstance(site.broker, Mosquitto)
        site.broker.kill()
        await until("it is gone", lambda: not ingest.bridge.connected)
        assert alarms(tmp_path, well, figures(ingest)) == {"TowlineBrokerAway"}
        site.broker.start()
