"""The rules and the dashboard in docs/: they parse, alerts fire when they should, and every metric exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.programs import REPOSITORY
from harness.scrape import get
from test_metrics import Monitored, promtool

DOCS = REPOSITORY / "docs"
_METRIC = re.compile(r"\b(?:latchkey|process)_[a-z_]+\b")


def expressions() -> Iterator[tuple[str, str]]:
    """Title and expression of each panel of the dashboard, as Grafana would query it."""
    for panel in json.loads((DOCS / "grafana.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "1m")
            yield panel["title"], re.sub(r"\$(job|instance)", ".*", expression)


def test_the_alert_rules_speak_when_they_should() -> None:
    done = promtool("test", "rules", str(REPOSITORY / "tests" / "alerts_test.yml"))
    assert done.returncode == 0, done


def test_the_dashboard_asks_what_prometheus_understands(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression}
        for number, (_, expression) in enumerate(expressions())
    ]
    assert len(rules) > 20
    file = tmp_path / "rules.yml"  # JSON is valid YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done


def told_metrics(there: Monitored) -> set[str]:
    """The names of all metrics and their series on the daemon's listener."""
    with there.serve():
        # The TYPE lines, because some metrics have no sample yet.
        told = get(there.metrics, "/metrics").body
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", told, re.MULTILINE))
    known = set(types)
    for name, kind in types.items():
        if kind == "histogram":
            known |= {name + suffix for suffix in ("_bucket", "_count", "_sum")}
    return known


def alert_rules() -> list[str]:
    """The text of each alert rule."""
    return (DOCS / "alerts.yml").read_text().split("- alert: ")[1:]


def test_alerts_and_dashboard_name_metrics_that_there_are(cluster: Any, databases: Any) -> None:
    there = Monitored(cluster, databases)
    known = told_metrics(there)
    there.close()
    for text in [(DOCS / "alerts.yml").read_text(), *(e for _, e in expressions())]:
        assert set(_METRIC.findall(text)) <= known, set(_METRIC.findall(text)) - known


def test_what_needs_the_protected_listener_says_so(cluster: Any, databases: Any) -> None:
    there = Monitored(cluster, databases)
    there.more += '\nmode = "0666"'
    known = told_metrics(there)
    there.close()
    panels = json.loads((DOCS / "grafana.json").read_text())["panels"]
    told = [(p.get("description", ""), json.dumps(p.get("targets", []))) for p in panels]
    told += [(rule, rule) for rule in alert_rules()]
    needing = 0
    for description, expression in told:
        needs = not set(_METRIC.findall(expression)) <= known
        assert ("Needs the protected listener." in description) == needs, expression
        needing += needs
    assert needing == 4


def test_each_alert_and_each_panel_is_explained() -> None:
    operations = (DOCS / "operations.md").read_text()
    alerts = re.findall(r"alert: (\w+)", (DOCS / "alerts.yml").read_text())
    assert len(alerts) >= 10
    for alert in alerts:
        assert f"### {alert}\n" in operations, alert
    flowing = " ".join(operations.split())
    for title, _ in expressions():
        assert f"**{title}**" in flowing, title
