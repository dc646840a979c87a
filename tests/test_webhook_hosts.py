"""Hosts and addresses that webhooks may be sent to."""

from ipaddress import ip_address

import pytest

from shared.webhook_hosts import WebhookHosts, WebhookUrlRefused, is_public, parse_host_entry


def hosts(*entries: str) -> WebhookHosts:
    return WebhookHosts(tuple(map(parse_host_entry, entries)))


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("hooks.example.com", "https://hooks.example.com/a?b=1"),
        ("hooks.example.com", "https://HOOKS.example.com:8443/"),
        ("hooks.example.com:8443", "https://hooks.example.com:8443/"),
        ("hooks.example.com:443", "https://hooks.example.com/"),
        ("*.example.com", "https://a.b.example.com/"),
        ("10.0.0.5", "http://10.0.0.5:8000/"),
        ("10.0.0.0/8", "http://10.1.2.3/"),
        ("127.0.0.1:9000", "http://127.0.0.1:9000/"),
        ("[::1]:9000", "http://[::1]:9000/"),
        ("fd00::/8", "http://[fd00::1]/"),
        ("localhost:9000", "http://localhost:9000/"),
        ("93.184.216.34", "https://93.184.216.34/"),
    ],
)
def test_a_listed_host_is_allowed(entry: str, url: str) -> None:
    hosts(entry).check(url)


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("hooks.example.com", "https://example.com/"),
        ("hooks.example.com", "https://hooks.example.com.evil.test/"),
        ("hooks.example.com", "https://evil.test/?hooks.example.com"),
        ("hooks.example.com", "https://evil.test#hooks.example.com"),
        ("hooks.example.com", "https://hooks.example.com@evil.test/"),
        ("hooks.example.com:8443", "https://hooks.example.com/"),
        ("*.example.com", "https://example.com/"),
        ("*.example.com", "https://badexample.com/"),
        ("hooks.example.com", "http://hooks.example.com/"),
        ("93.184.216.34", "http://93.184.216.34/"),
        ("10.0.0.5", "http://10.0.0.6/"),
        ("10.0.0.0/8", "https://2130706433/"),
        ("10.0.0.0/8", "https://0x7f.1/"),
        ("127.0.0.1:9000", "http://127.0.0.1:9001/"),
    ],
)
def test_another_host_is_refused(entry: str, url: str) -> None:
    with pytest.raises(WebhookUrlRefused):
        hosts(entry).check(url)


@pytest.mark.parametrize(
    "entry", ["https://example.com", "a b", "example.com/x", "10.0.0.0/33", "u@example.com", "", "a:b", "x:0"]
)
def test_an_entry_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_host_entry(entry)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.1.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_addresses_of_the_internet(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


def test_a_name_may_not_lead_into_the_own_network() -> None:
    listed = hosts("hooks.example.com")
    refusal = listed.refusal_of(ip_address("10.0.0.1"), is_trusted=False, is_http=False)
    assert refusal == "10.0.0.1 is not a public address; add it, or its network, to HEADRACE_WEBHOOK_HOSTS"
    assert hosts("app", "10.0.0.0/8").refusal_of(ip_address("10.0.0.1"), is_trusted=False, is_http=True) is None
    assert listed.refusal_of(ip_address("93.184.216.34"), is_trusted=False, is_http=False) is None
    assert listed.refusal_of(ip_address("93.184.216.34"), is_trusted=True, is_http=True) is not None
    assert listed.refusal_of(ip_address("10.0.0.1"), is_trusted=True, is_http=True) is None
