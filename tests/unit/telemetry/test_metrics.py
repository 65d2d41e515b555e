import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import wvs
from wvs import __version__
from wvs.http.watermark_watch import WATERMARK_STUCK_S
from wvs.telemetry.metrics import CONTENT_TYPE, Metrics

ROOT = Path(wvs.__file__).parents[2]

# design §11, and the metrics that the rule "every failure moves a metric" needs
CONTRACT: dict[str, tuple[str, ...]] = {
    "wvs_build_info": ("version", "python"),
    "wvs_http_requests_total": ("route", "method", "status"),
    "wvs_http_request_duration_seconds": ("route", "method"),
    "wvs_refusals_total": ("code",),
    "wvs_tasks": ("kind", "state"),
    "wvs_task_oldest_pending_age_seconds": ("kind",),
    "wvs_task_duration_seconds": ("kind", "outcome"),
    "wvs_task_attempts_total": ("kind", "outcome"),
    "wvs_quiesce_duration_seconds": ("outcome",),
    "wvs_freeze_seconds": (),
    "wvs_bystanders_total": (),
    "wvs_clone_duration_seconds": ("engine", "kind"),
    "wvs_clone_bytes_total": (),
    "wvs_clone_files_total": (),
    "wvs_executors": (),
    "wvs_fence_rejections_total": (),
    "wvs_lease_lost_total": (),
    "wvs_event_append_total": (),
    "wvs_event_conflicts_total": (),
    "wvs_follower_lag_events": (),
    "wvs_watermark_age_seconds": (),
    "wvs_watermark_holder_age_seconds": ("application", "pid"),
    "wvs_event_streams": (),
    "wvs_event_stream_ends_total": ("reason",),
    "wvs_sessions": ("state",),
    "wvs_volume_brake": (),
    "wvs_volume_free_bytes": (),
    "wvs_volume_stuck_trees": (),
    "wvs_disk_used_ratio": ("disk",),
    "wvs_sweeper_trees_total": ("action",),
    "wvs_pg_pool_in_use": (),
    "wvs_ignored_failures_total": ("where",),
}


def _attribute_of(name: str) -> str:
    return name.removeprefix("wvs_").removesuffix("_total")


def test_every_metric_of_the_contract_is_exposed_with_its_name_labels_and_help_text():
    metrics = Metrics()
    for name, labels in CONTRACT.items():
        if name == "wvs_build_info":
            continue
        metric = getattr(metrics, _attribute_of(name))
        metric = metric.labels(**dict.fromkeys(labels, "x")) if labels else metric
        getattr(metric, "observe" if hasattr(metric, "observe") else "inc")(1)
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    for name, labels in CONTRACT.items():
        family = families[name.removesuffix("_total")]
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(labels)
            assert sample.name.startswith(name)
            assert not sample.name.endswith("_created")


def test_there_is_no_metric_outside_the_contract():
    ours = {family.name for family in Metrics().registry.collect() if family.name.startswith("wvs_")}
    assert ours == {name.removesuffix("_total") for name in CONTRACT}


def test_no_label_is_named_after_an_id():
    labels = {label for labels in CONTRACT.values() for label in labels}
    assert not labels & {"id", "workspace", "task", "snapshot", "session", "name", "path"}


def test_build_info_names_the_version():
    assert f'version="{__version__}"' in Metrics().render().decode()
    assert CONTENT_TYPE.startswith("text/plain; version=")


def test_two_instances_do_not_share_counts():
    one, other = Metrics(), Metrics()
    one.event_append.inc(3)
    assert "wvs_event_append_total 3.0" in one.render().decode()
    assert "wvs_event_append_total 0.0" in other.render().decode()


def test_an_unknown_label_is_an_error():
    with pytest.raises(ValueError, match="label"):
        Metrics().tasks.labels(task_id="x")


def test_every_metric_that_a_page_for_operators_names_exists():
    pages = [*(ROOT / "runbooks").glob("*.md"), *(ROOT / "docs").glob("*.md")]
    named = {name for page in pages for name in re.findall(r"`?(wvs_[a-z_]+)[`{) ]", page.read_text(encoding="utf-8"))}
    other = {"wvs_tasks", "wvs_events", "wvs_sessions", "wvs_freezes", "wvs_fresh", "wvs_retired"}  # channels, schemas
    assert len(named) > len(CONTRACT)
    assert named - other - CONTRACT.keys() == set()


def test_the_alert_of_the_watermark_fires_before_a_person_would_notice_and_not_for_an_append():
    page = (ROOT / "runbooks/stuck-watermark.md").read_text(encoding="utf-8")
    ((name, seconds),) = re.findall(r"expr: max\((\w+)\) > (\d+)", page)
    assert name in CONTRACT
    assert WATERMARK_STUCK_S < int(seconds) <= 60
