"""Kubernetes' functions in expressions, by the examples of its documentation."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.expressions import rights
from apiserver.expressions.compiling import ExpressionError, compile_expression

TRUE = [
    # quantities
    "quantity('1Ki').isGreaterThan(quantity('1000'))",
    "quantity('50k').add(20).compareTo(quantity('50020')) == 0",
    "quantity('50k').sub(quantity('0.5k')).asInteger() == 49500",
    "quantity('1000m') == quantity('1')",
    "quantity('150Mi').isLessThan(quantity('1Gi'))",
    "quantity('-1').sign() == -1 && quantity('0').sign() == 0",
    "quantity('50M').isInteger() && !quantity('500m').isInteger()",
    "quantity('0.5').asApproximateFloat() == 0.5",
    "isQuantity('1.3Gi') && !isQuantity('1.3GiB')",
    "self.amounts.all(x, quantity(x).isLessThan(quantity('3')))",
    # semantic versions
    "semver('1.2.3').isLessThan(semver('1.10.0'))",
    "semver('1.0.0-alpha.1').isLessThan(semver('1.0.0-alpha.beta'))",
    "semver('1.0.0-rc.1').compareTo(semver('1.0.0')) == -1",
    "semver('v01.2', true).minor() == 2 && semver('3.4.5').major() == 3 && semver('3.4.5').patch() == 5",
    "isSemver('1.0.0+build') && !isSemver('v1.0') && isSemver('v1.0', true)",
    # addresses
    "ip('127.0.0.1').family() == 4 && ip('::1').family() == 6",
    "ip('127.0.0.1').isLoopback() && ip('0.0.0.0').isUnspecified() && ip('fe80::1').isLinkLocalUnicast()",
    "ip('224.0.0.1').isLinkLocalMulticast() && !ip('224.0.1.1').isLinkLocalMulticast()",
    "ip('192.168.0.1').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast()",
    "ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD')",
    "isIP('1.2.3.4') && !isIP('1.2.3') && !isIP('::ffff:1.2.3.4') && !isIP('fe80::1%eth0')",
    "cidr('192.168.0.0/24').containsIP('192.168.0.9') && !cidr('192.168.0.0/24').containsIP(ip('192.168.1.9'))",
    "cidr('192.168.0.0/24').containsCIDR('192.168.0.0/25') && !cidr('10.0.0.0/8').containsCIDR(cidr('10.0.0.0/7'))",
    "cidr('192.168.0.7/24').masked() == cidr('192.168.0.0/24') && cidr('::1/128').prefixLength() == 128",
    "cidr('192.168.0.7/24').ip() == ip('192.168.0.7') && isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0')",
    # URLs
    "url('https://example.com:80/a b?k=1&k=2').getHost() == 'example.com:80'",
    "url('https://[::1]:80/').getHostname() == '::1' && url('https://h/').getPort() == ''",
    "url('https://h/a b/').getEscapedPath() == '/a%20b/' && url('/path').getScheme() == ''",
    "url('https://h/?k=1&k=2').getQuery() == {'k': ['1', '2']}",
    "isURL('https://example.com') && !isURL('example.com') && !isURL('http://h:port/')",
    # lists and sets
    "[1, 2, 2].isSorted() && !['b', 'a'].isSorted() && [1, 2].sum() == 3 && [3, 1].min() == 1 && [3, 1].max() == 3",
    "['a', 'b', 'a'].indexOf('a') == 0 && ['a', 'b', 'a'].lastIndexOf('a') == 2 && [1].indexOf(2) == -1",
    "'abcb'.indexOf('b') == 1 && 'abcb'.lastIndexOf('b') == 3",
    "[duration('1s'), duration('2s')].sum() == duration('3s')",
    "[1, [2, [3]]].flatten() == [1, 2, [3]] && [1, [2, [3]]].flatten(2) == [1, 2, 3]",
    "[1, 2, 3].slice(1, 2) == [2] && [1, 1, 2].distinct() == [1, 2] && [2, 1].sort() == [1, 2]",
    "lists.range(3) == [0, 1, 2] && [1, 2].reverse() == [2, 1] && 'ab'.reverse() == 'ba'",
    "sets.contains([1, 2, 3], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])",
    "self.amounts.isSorted() && sets.contains(self.amounts, ['1'])",
    # texts
    "'abc 123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2'] && 'a1b2'.findAll('[0-9]', 1) == ['1']",
    "!format.dns1123Label().validate('my-label').hasValue()",
    "format.dns1123Label().validate('-no-').hasValue() && format.uuid().validate('x').value().size() == 1",
    "format.named('dns1123Subdomain').value().validate('a.b').orValue([]) == [] && !format.named('odd').hasValue()",
    "'%s %d %.2f'.format(['a', 1, 0.5]) == 'a 1 0.50'",
    # optionals
    "self.?missing.orValue('x') == 'x' && self[?'amounts'].hasValue() && [1].first().value() == 1",
    "optional.ofNonZeroValue('').orValue('d') == 'd' && self.?a.b.optMap(x, x + 1).orValue(0) == 0",
]
BROKEN = [
    ("quantity('x').sign() == 1", "quantities must match"),
    ("quantity('0.5').asInteger() == 1", "cannot convert value to integer"),
    ("ip('::ffff:1.2.3.4').family() == 4", "IPv4-mapped IPv6 address"),
    ("cidr('10.0.0.0').prefixLength() == 1", "network address parse error"),
    ("url('no url').getHost() == ''", "URL parse error"),
    ("'a'.find('(') == ''", "error parsing regexp"),
    ("[].min() == 1", "min called on empty list"),
    ("[1].slice(0, 5) == []", "cannot slice(0, 5), list is length 1"),
    ("semver('v1').major() == 1", "invalid semantic version"),
    ("1 / 0 == 1", "division by zero"),
    ("lists.range(300).all(a, lists.range(300).all(b, a + b >= 0))", "operation cancelled: actual cost limit exceeded"),
    ("authorizer.path('/x').check('get').allowed()", "authorizer is not available here"),
]
NAMES = ("self", "authorizer", "authorizer.requestResource")
VALUES: dict[str, Any] = {
    "self": {"amounts": ["1", "2"]},
    "authorizer": rights.authorizer(),
    "authorizer.requestResource": rights.request_resource(group="apps", resource="deployments", namespace="ns"),
}


@pytest.mark.parametrize("text", TRUE)
def test_holds(text: str) -> None:
    assert compile_expression(text, NAMES).evaluate(VALUES) is True


@pytest.mark.parametrize(("text", "why"), BROKEN)
def test_fails_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=why.replace("(", r"\(").replace(")", r"\)")):
        compile_expression(text, NAMES).evaluate(VALUES)


@pytest.mark.parametrize(
    "text", ["quantity(1).sign() == 1", "quantity('1').isLessThan(semver('1.0.0'))", "ip('::1').getHost() == ''"]
)
def test_types_are_checked_when_compiled(text: str) -> None:
    with pytest.raises(ExpressionError, match="found no matching overload"):
        compile_expression(text, NAMES)


def test_the_authorizer_is_asked_what_the_chain_says() -> None:
    asked: list[dict[str, str]] = []

    def decide(question: dict[str, str]) -> tuple[bool, str]:
        asked.append(question)
        return question["verb"] == "create", "because"

    texts = [
        "authorizer.group('apps').resource('deployments').subresource('scale').namespace('n').name('d').check('create')"
        ".allowed()",
        "!authorizer.path('/healthz').check('get').allowed()",
        "authorizer.serviceAccount('ns', 'bot').group('').resource('pods').check('get').reason() == 'because'",
        "authorizer.requestResource.check('create').allowed() && !authorizer.requestResource.check('x').errored()",
    ]
    with rights.deciding(decide):
        assert all(compile_expression(text, NAMES).evaluate(VALUES) for text in texts)
    assert asked[0] == {
        "group": "apps",
        "resource": "deployments",
        "subresource": "scale",
        "namespace": "n",
        "name": "d",
        "verb": "create",
    }
    assert asked[1] == {"path": "/healthz", "verb": "get"}
    assert asked[2]["user"] == "system:serviceaccount:ns:bot"
    assert asked[3] == {"group": "apps", "resource": "deployments", "namespace": "ns", "verb": "create"}
