import re
from pathlib import Path

import pytest

import wvs
from wvs.settings import InvalidSetting, LiveOwner, Settings, describe_settings, load_settings, unknown_variables


def test_an_empty_environment_gives_the_defaults():
    assert load_settings({}) == Settings()


def test_an_empty_variable_means_the_default():
    assert load_settings({"WVS_PORT": "", "WVS_LOG_LEVEL": "  "}) == Settings()


def test_every_kind_of_value_is_read():
    settings = load_settings(
        {
            "WVS_PORT": "0",
            "WVS_POLL_S": "0.25",
            "WVS_ALLOWED_HOSTS": "wvs.example, LOCALHOST",
            "WVS_LIVE_OWNER": "1234:5678",
            "WVS_LIVE_MODE": "2775",
            "WVS_VOLUME": "/srv/../srv/vol",
            "WVS_CLONE_JOURNAL": "/var/tmp/clones",
            "WVS_LOG_FORMAT": "json",
            "WVS_DATABASE_URL": "postgresql://u:p@h/d",
        }
    )
    assert settings.port == 0
    assert settings.poll_s == 0.25
    assert settings.allowed_hosts == ("wvs.example", "localhost")
    assert settings.live_owner == LiveOwner(uid=1234, gid=5678)
    assert settings.live_mode == 0o2775
    assert settings.volume == Path("/srv/../srv/vol")
    assert settings.clone_journal == Path("/var/tmp/clones")
    assert settings.log_format == "json"
    assert settings.database_url == "postgresql://u:p@h/d"


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("WVS_PORT", "65536", "a whole number from 0 to 65535"),
        ("WVS_PORT", "-1", "a whole number from 0 to 65535"),
        ("WVS_PORT", "http", "a whole number from 0 to 65535"),
        ("WVS_EXECUTOR_SLOTS", "0", "a whole number from 1 to 1024"),
        ("WVS_EXECUTOR_SLOTS", "1.5", "a whole number from 1 to 1024"),
        ("WVS_LEASE_S", "0", "a number of seconds greater than 0"),
        ("WVS_LEASE_S", "nan", "a number of seconds greater than 0"),
        ("WVS_LEASE_S", "inf", "a number of seconds greater than 0"),
        ("WVS_LOG_FORMAT", "xml", "auto or json or console"),
        ("WVS_LOG_LEVEL", "INFO", "debug or info or warning or error"),
        ("WVS_LIVE_MODE", "898", "an octal mode"),
        ("WVS_LIVE_MODE", "17777", "an octal mode"),
        ("WVS_LIVE_OWNER", "no-such-user", "USER or USER:GROUP"),
        ("WVS_LIVE_OWNER", "4294967295", "USER or USER:GROUP"),
        ("WVS_LIVE_OWNER", "root:no-such-group", "USER or USER:GROUP"),
        ("WVS_LIVE_OWNER", "99999999999:5", "USER or USER:GROUP"),
        ("WVS_LIVE_OWNER", "5:4294967295", "USER or USER:GROUP"),
        ("WVS_ALLOWED_HOSTS", ",", "host names or addresses separated by commas"),
        ("WVS_ALLOWED_HOSTS", "*", "there is no wildcard and no network"),
        ("WVS_ALLOWED_HOSTS", "localhost,*.example", "there is no wildcard and no network"),
        ("WVS_ALLOWED_HOSTS", "10.244.0.0/16", "there is no wildcard and no network"),
        ("WVS_ALLOWED_HOSTS", "http://wvs.example", "host names or addresses"),
        ("WVS_ALLOWED_HOSTS", "::1", "host names or addresses"),
        ("WVS_PUBLIC_URL", "example.com/wvs", "a URL http(s)://HOST"),
        ("WVS_PUBLIC_URL", "https://example.com/a b", "a URL http(s)://HOST"),
        ("WVS_PUBLIC_URL", "https://example.com//wvs", "a URL http(s)://HOST"),
        ("WVS_PUBLIC_URL", "https://example.com/wvs?x", "a URL http(s)://HOST"),
        ("WVS_KEEP_ALIVE_S", "0", "a whole number from 1 to 3600"),
        ("WVS_HOST", "..", "an address or a host name"),
        ("WVS_DATA_DIR", "~no-such-user/x", "a directory"),
        ("WVS_CLONE_JOURNAL", "/no/such/directory/file", "a file in a directory that exists"),
        ("WVS_CLONE_JOURNAL", "/tmp", "a file in a directory that exists"),
    ],
)
def test_an_error_names_the_variable_its_bad_value_and_the_allowed_values(variable: str, value: str, allowed: str):
    with pytest.raises(InvalidSetting) as caught:
        load_settings({variable: value})
    assert f"{variable}={value!r}" in str(caught.value)
    assert allowed in str(caught.value)


def test_an_error_hides_a_bad_database_url_because_it_may_hold_a_password():
    with pytest.raises(InvalidSetting, match="WVS_DATABASE_URL") as caught:
        load_settings({"WVS_DATABASE_URL": "host=h password=geheim"})
    assert "geheim" not in str(caught.value)


def test_a_lease_must_outlast_one_failed_renewal():
    with pytest.raises(InvalidSetting, match=r"WVS_LEASE_RENEW_S=10 .* WVS_LEASE_S=12"):
        load_settings({"WVS_LEASE_S": "12"})
    assert load_settings({"WVS_LEASE_S": "12", "WVS_LEASE_RENEW_S": "6"}).lease_s == 12


def test_the_volume_is_below_the_data_directory_unless_it_has_a_path_of_its_own():
    assert load_settings({"WVS_DATA_DIR": "/srv/wvs"}).volume_path == Path("/srv/wvs/volume")
    assert load_settings({"WVS_DATA_DIR": "/srv/wvs", "WVS_VOLUME": "/mnt/vol"}).volume_path == Path("/mnt/vol")
    assert Settings().volume_path == Path.cwd() / ".wvs" / "volume"


def test_a_misspelled_variable_is_reported_with_the_most_similar_setting():
    found = unknown_variables(
        {"WVS_POTR": "1", "WVS_URL": "http://x", "WVS_PORT": "1", "PATH": "/bin", "WVS_ZZZZZZ": ""}
    )
    assert found == [("WVS_POTR", "WVS_PORT"), ("WVS_ZZZZZZ", None)]


def test_every_documented_default_is_read_back_as_the_default():
    docs = list(describe_settings())
    assert len(docs) == len(Settings.__struct_fields__)
    assert all(doc.description and doc.allowed for doc in docs)
    relative = {"WVS_DATA_DIR"}  # made absolute when read
    written = {doc.variable: doc.default for doc in docs if doc.variable not in relative}
    assert load_settings(written) == Settings()


def test_variables_of_the_other_programs_are_known():
    """Each that the console or an agent reads or sets, and none of them can hide a typing error beside it."""
    sources = [path for room in ("agent", "cli/wvsctl") for path in (Path(wvs.__file__).parent / room).rglob("*.py")]
    named = {name for path in sources for name in re.findall(r'"(WVS_[A-Z_]+)"', path.read_text())}
    assert {"WVS_URL", "WVS_ACTOR", "WVS_WORKSPACE", "WVS_SESSION", "WVS_LIVE"} <= named
    assert unknown_variables(dict.fromkeys(named, "x")) == []
    assert unknown_variables({"WVS_URLL": "", "WVS_SESSION_ID": "", "WVS_WORKSPACES": ""}) == [
        ("WVS_SESSION_ID", "WVS_SESSION"),
        ("WVS_URLL", "WVS_URL"),
        ("WVS_WORKSPACES", "WVS_WORKSPACE"),
    ]
