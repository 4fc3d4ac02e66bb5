"""Machines and webmails that fetch pixels: rules and networks as data, each with where it is known from and since when.

The first rule that fits wins. The order is the judgement where signs contradict each other, strongest sign first:
floods; what no reader does; machines that say so; confirmed names and networks of gateways; what Apple and webmails
fetch; times last, which alone convict nobody. What no rule takes is read by its client (readers.py). What each can get
wrong is in docs/opens.md. Samples are agents; patterns are searched in the lower-cased agent, linear in its length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_network

from relay.core.model import Opener
from relay.core.networks import Network
from relay.core.readers import BARE, CHROME


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


@dataclass(frozen=True, slots=True)
class Rule:
    """One sign, or several that must come together. `client` is empty where only the agent can name it."""

    name: str
    opener: Opener
    client: str
    reason: str
    source: str
    sample: str
    agent: str = ""
    networks: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()  # the confirmed name is one of these or below one; or fits its `*`
    soon: float | None = None  # fetched before so many seconds since upstream took the mail
    burst: int = 0  # at least so many earlier fetches within the last 10 seconds
    other_method: bool = False  # than GET
    regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", re.compile(self.agent))


FLOOD = Rule(
    "flood",
    Opener.SCANNER,
    "",
    "It was fetched more often within ten seconds than anybody looks at a mail.",
    "Our own bound, 2025: three looks a second are no reading, not even by a list of readers behind one address",
    CHROME,
    burst=30,
)
"""The first rule, so that the agents of a flood need not be read: reading one costs more than sending it."""

RULES: tuple[Rule, ...] = (
    FLOOD,
    # -- What no reader does ---------------------------------------------------------------------------------
    Rule(
        "another method",
        Opener.SCANNER,
        "",
        "It asked about the picture instead of for it (not with GET), which nothing does that shows mail to somebody.",
        "RFC 9110 9.3.2, 2022-06: the answer to HEAD has no content that could be shown",
        CHROME,
        other_method=True,
    ),
    Rule(
        "no agent",
        Opener.SCANNER,
        "",
        "It did not say what it is (no user agent), as mail clients and browsers do.",
        "RFC 9110 10.1.5, 2022-06: user agents SHOULD send the field; those that people use do",
        "",
        agent=r"^[\W\d_]*$",
    ),
    # -- Machines that say so --------------------------------------------------------------------------------
    Rule(
        "Microsoft Office discovery",
        Opener.SCANNER,
        "Microsoft Office",
        "It is Office asking what is behind an address, which it does without showing anything.",
        "Microsoft KB838028, 2008-03 (Office protocol discovery); [MS-OFBA]",
        "Microsoft Office Existence Discovery",
        agent=r"microsoft office (existence|protocol) discovery|microsoft-webdav-miniredir",
    ),
    *(
        Rule(
            f"{client or 'another gateway'} by its agent",
            Opener.SCANNER,
            client,
            f"It calls itself {client or 'a scanner'}: a security gateway, which looks at mail before it is handed on.",
            "GMass, list of false opens, 2024 (Barracuda Sentinel, SCMGUARD); the makers' names of theirs, 2026",
            sample,
            agent=agent,
        )
        for client, sample, agent in (
            ("Barracuda", "Barracuda Sentinel (EE)", r"\bbarracuda"),
            ("SCMGUARD", "SCMGUARD", r"\bscmguard\b"),
            ("Proofpoint", "Proofpoint URL Defense/1.0", r"\b(proofpoint|urldefense)"),
            ("Mimecast", "Mimecast/2.0 TTP", r"\bmimecast"),
            ("Symantec", "Symantec Email Security.cloud", r"\bsymantec[ -](email|cloud)|\bmessagelabs\b"),
            ("Cisco", "IronPort URL Scanner", r"\bironport\b|\bcisco[ -](esa|secure)"),
            ("Trellix", "FireEye ETP/1.0", r"\bfireeye|\btrellix\b"),
            ("Forcepoint", "Forcepoint Email Security", r"\b(forcepoint|websense)\b"),
            ("Fortinet", "FortiMail/7.2", r"\bforti(mail|sandbox|guard)\b"),
            ("Trend Micro", "TrendMicro TMES/1.0", r"\btrend ?micro"),
            ("Microsoft", "Microsoft SafeLinks", r"\bsafelinks\b"),
            ("Hornetsecurity", "Hornetsecurity ATP", r"\bhornetsecurity\b"),
            ("Sophos", "Sophos Email/1.0", r"\bsophos\b"),
            ("Check Point", "Avanan/1.0", r"\bavanan\b"),
            (
                "",
                "VirusTotalCloud",
                r"\b(virustotal|urlscan|cloudmark|ironscales|vade ?secure|safebrowsing|rspamd|spamassassin)",
            ),
        )
    ),
    Rule(
        "robot",
        Opener.SCANNER,
        "",
        "It names itself as a robot: a crawler, a monitor, or a preview of links.",
        "The robots' own pages, such as developers.google.com/search/docs/crawling-indexing/googlebot, 2025",
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        agent=r"(?<!\bcu)bot(\b|[_-])|\bcrawl|crawler|spider\b|\bslurp\b|scanner\b|checker\b|\bscrap(er|y)\b|\bia_archiver\b"
        r"|\bfacebook(externalhit|catalog)\b|\bmeta-external|^whatsapp/|\bbingpreview\b|\bskypeuripreview\b"
        r"|\bmicrosoft ?preview\b|\b(link|url) ?(preview|check)|\bembedly\b|\biframely\b|-google\b|\bgoogle favicon\b"
        r"|\bgoogle-(read-aloud|inspectiontool|safety|apps-script)\b|\b(chatgpt|claude|perplexity)-user\b"
        r"|\bgoogleother\b|\bchrome-lighthouse\b|\bptst/|\bsiteimprove\b|\bhubspot\b|\buptime|\bpingdom|\bstatuscake|\bdatadog|\bsite24x7|(\b|_)monitor(ing)?\b|\bnutch\b|\bnmap\b|\bmasscan\b"
        r"|\bzgrab\b|\bcensys|\bnuclei\b|\bnessus\b|validator\b"
        r"|\bhealth[ -]?check|\bkube-probe\b|pinger\b|\bprometheus/|\bzabbix\b|\bnetcraft",
    ),
    Rule(
        "browser without a screen",
        Opener.SCANNER,
        "",
        "It is a browser that a program drives, with no screen for anybody to look at.",
        "developer.chrome.com, 'Chrome Headless mode', 2023-02; the projects' own documentation",
        CHROME.replace("Chrome/", "HeadlessChrome/"),
        agent=r"headless|\b(phantomjs|slimerjs|puppeteer|playwright|selenium|cypress|jsdom|htmlunit|zombie\.js)\b"
        r"|\bwkhtmlto(pdf|image)\b",
    ),
    Rule(
        "HTTP library",
        Opener.SCANNER,
        "",
        "It is a library that programs fetch with, and not something that people read mail in.",
        "The default agents in the libraries' sources, 2026; GMass, list of false opens, 2024 (AHC, requests, resty)",
        "python-requests/2.28.2",
        agent=r"^(python|apache-http|guzzle|postman|okhttp|libwww|symfony|wordpress|winhttp|restsharp|reactor|hubspot)"
        r"|^(aiohttp|httpx|urllib3?|pycurl|curl|libcurl|wget|httpie|xh|aria2|lwp|go-http-client|go|fasthttp|java|jakarta"
        r"|ahc|jetty|netty|akka-http|pekko-http|vert\.x|unirest|ktor|armeria|node|node-fetch|undici|axios|got|needle"
        r"|superagent|request|bun|deno|ruby|rest-client|faraday|typhoeus|httparty|http\.rb|mechanize|php|zend|laminas"
        r"|drupal|pear|http_request2?|http-client|http::tiny|mojolicious|reqwest|hyper|ureq|isahc|rust|dart|flurl|\.net"
        r"|dotnet|microsoft url control|lua|lua-resty-http|luasocket|erlang|hackney|elixir|req|finch|tesla|scala|sttp"
        r"|clj-http|haskell|http-conduit|julia|perl|colly|go-resty|grequests|insomnia|k6|apachebench|jmeter|gatling"
        r"|locust|siege|wrk|vegeta|amazon cloudfront|powershell|windowspowershell|libfetch|synapse)(?![a-z])"
        r"|\b(python-|(python|cpython|php|ruby|perl|java|golang|node\.js)/v?\d|okhttp)"
        r"|(http-client|-httpclient|httplib2?|-fetch|libcurl|java-client)\b"
        r"|\b(aiohttp|lua-resty-http|ngx_lua|libwww-perl|mechanize|winhttp\.winhttprequest|anyevent-http|indy library"
        r"|windowspowershell|guzzlehttp|ahc|curl|sqlmap)\b",
    ),
    # -- Gateways by where they are --------------------------------------------------------------------------
    *(
        Rule(
            f"{client} by its name in the DNS",
            Opener.SCANNER,
            client,
            f"Its address belongs to {client} by its confirmed name: a gateway looks at mail before it is handed on.",
            source,
            CHROME,
            hosts=hosts,
        )
        for client, hosts, source in (
            (
                "Proofpoint",
                ("pphosted.com", "ppe-hosted.com", "ppops.net"),
                "Proofpoint's MX names, 2025; mx0b-00364e01.pphosted.com is 148.163.139.74 both ways",
            ),
            (
                "Barracuda",
                ("barracuda.com", "barracudanetworks.com"),
                "Barracuda Campus document 96023004, 2025; EmailEngine's detectAutomatedRequest, 2024",
            ),
            (
                "Microsoft",
                ("protection.outlook.com",),
                "Microsoft Learn, 'Microsoft 365 URLs and IP address ranges', id 10, 2025",
            ),
            (
                "Mimecast",
                ("mimecast.com", "mimecast.co.za", "mimecast-offshore.com"),
                "Mimecast, 'Data Centers and URLs', 2025",
            ),
            ("Symantec", ("messagelabs.com",), "Broadcom, 'Email Security.cloud' MX names, 2025"),
            ("Cisco", ("iphmx.com",), "Cisco, 'Secure Email Cloud Gateway' host names, 2025"),
            ("Forcepoint", ("mailcontrol.com",), "Forcepoint, 'Email Security Cloud' MX names, 2025"),
            ("Trellix", ("fireeyecloud.com",), "Trellix, 'Email Security Cloud' MX names, 2025"),
            (
                "Trend Micro",
                ("tmes.trendmicro.com", "tmes.trendmicro.eu", "tmes-anz.trendmicro.com"),
                "Trend Micro, 'Email Security' MX names, 2025",
            ),
            ("Sophos", ("hydra.sophos.com",), "Sophos Central, 'Email Security' MX names, 2025"),
            ("Hornetsecurity", ("hornetsecurity.com", "antispameurope.com"), "Hornetsecurity, MX names, 2025"),
            ("SpamExperts", ("antispamcloud.com",), "N-able Mail Assure (SpamExperts), MX names, 2025"),
        )
    ),
    *(
        Rule(
            f"{client} by its network",
            Opener.SCANNER,
            client,
            f"Its address is in a network of {client}'s mail gateways, which look at mail before it is handed on.",
            source,
            CHROME,
            networks=networks(*ranges),
        )
        for client, ranges, source in (
            ("Proofpoint", ("67.231.144.0/20", "148.163.128.0/19"), "ARIN, organisation PROOF, 2025"),
            (
                "Barracuda",
                ("64.235.144.0/20", "209.222.80.0/21"),
                "ARIN, organisation BARRA, 2025; Barracuda Campus document 96023004",
            ),
            (
                "Mimecast",
                ("91.220.42.0/24", "205.139.110.0/24", "207.211.30.0/23"),
                "Mimecast, 'Data Centers and URLs', 2023; RIPE and ARIN agree",
            ),
            (
                "Microsoft",
                ("40.92.0.0/15", "40.94.0.0/16", "40.107.0.0/16", "52.100.0.0/14", "104.47.0.0/17"),
                "Microsoft Learn, 'Microsoft 365 URLs and IP address ranges', id 10, 2025; 40.94/16 is Safe Links by"
                " what several senders saw. Outlook's users fetch from their own networks",
            ),
        )
    ),
    # -- Who fetches ahead of a reader, or for one -----------------------------------------------------------
    Rule(
        "Gmail ahead",
        Opener.PREFETCH,
        "Gmail",
        "Gmail fetched it when the mail came in, before anybody opened it.",
        "GMass, 'False opens in Gmail', 2021-12: just this agent, from Google's networks",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/42.0.2311.135 "
        "Safari/537.36 Edge/12.246 Mozilla/5.0",
        agent=r"chrome/42\.0\.2311\.135 safari/537\.36 edge/12\.246 mozilla/5\.0$",
    ),
    Rule(
        "Gmail by its name in the DNS",
        Opener.PROXY,
        "Gmail",
        "Gmail's picture proxy fetched it (by its confirmed name) for somebody who opened the mail.",
        "developers.google.com, 'User-triggered fetchers', 2025: google-proxy-a-b-c-d.google.com",
        CHROME,
        hosts=("google-proxy-*.google.com",),
    ),
    Rule(
        "Apple Mail Privacy Protection",
        Opener.PREFETCH,
        "Apple Mail",
        "Apple Mail fetches all pictures by itself and hides its user: whether anybody looked, it does not tell.",
        "ua-parser/uap-core issue 509, 2021-09: this is the whole agent",
        "Mozilla/5.0",
        agent=r"^mozilla/5\.0$",
    ),
    *(
        Rule(
            name,
            Opener.PROXY,
            client,
            f"{client} fetched it for somebody who opened the mail; where they are stays hidden.",
            source,
            sample,
            agent=agent,
        )
        for name, client, agent, sample, source in (
            (
                "Gmail",
                "Gmail",
                r"googleimageproxy|\bvia ggpht\.com\b",
                "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
                "Gmail blog, 'Images now showing', 2013-12; ua-parser/uap-core pull 170, 2016-10",
            ),
            (
                "Yahoo",
                "Yahoo Mail",
                r"\byahoomailproxy\b",
                "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
                "Yahoo help SLN28749; ua-parser/uap-core pull 333, 2018",
            ),
            (
                "Seznam",
                "Seznam Email",
                r"\bseznamemailproxy\b",
                "Mozilla/5.0 SeznamEmailProxy/2.0.174",
                "matomo-org/device-detector issue 5668, 2017",
            ),
            (
                "Fastmail",
                "Fastmail",
                r"\bfastmailua\b",
                "FastmailUA/1.0",
                "warmbly/warmbly, mail clients table, 2026; Fastmail help, 'Remote images'",
            ),
            (
                "HEY",
                "HEY",
                r"\bhey\.com/imageproxy\b",
                "hey.com/imageproxy Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
                "Chrome/134.0.0.0 Safari/537.36",
                "warmbly/warmbly, mail clients table, 2026; hey.com, 'Spy pixel blocker'",
            ),
        )
    ),
    Rule(
        "Mail.ru",
        Opener.PROXY,
        "Mail.ru",
        "Mail.ru fetched it for somebody who opened the mail; where they are stays hidden.",
        "mssola/user_agent issue 54, 2019: this browser, years out of date, from these networks alone",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/32.0.1700.2 Safari/537.36",
        agent=r"\bchrome/32\.",
        networks=networks("188.93.56.0/24", "185.30.176.0/23"),
    ),
    Rule(
        "another picture proxy",
        Opener.PROXY,
        "",
        "A picture proxy, by its own name, fetched it for somebody who opened the mail; where they are stays hidden.",
        "What webmails call theirs: the name says what it is for. 2025",
        "Mozilla/5.0 (compatible; ExampleMailImageProxy/1.0)",
        agent=r"(image|img|picture|mail)[ _-]?proxy|\(via [^)]*\bproxy\)|\bcamo asset proxy\b|\bgithub-camo\b",
    ),
    Rule(
        "another robot",
        Opener.SCANNER,
        "",
        "It gives the address of a page, or of somebody to write to, as robots do and no mail program does.",
        "The robots' custom since the 1990s: (+https://...), as in Googlebot's agent, 2025",
        "Mozilla/5.0 (compatible; ExampleFetcher/1.0; +https://fetcher.example/about)",
        agent=r"\+https?://|\w@[a-z\d-]+\.[a-z]",
    ),
    Rule(
        "robot beside a browser",
        Opener.SCANNER,
        "",
        "It names itself after the browser that it is like: robots do that, and browsers end with their own name.",
        "Google's and Bing's lists of their crawlers, 2025: '(KHTML, like Gecko; compatible; ...', '(compatible; ...'",
        CHROME + " (compatible; ExampleFetcher)",
        agent=r"\blike gecko(;|\).*\bcompatible;)",
    ),
    # -- Times: with other signs only ------------------------------------------------------------------------
    Rule(
        "many at once, just sent",
        Opener.SCANNER,
        "",
        "It was fetched again and again within seconds of being sent, as gateways do that look several times.",
        "Our own bound, 2025: five earlier fetches in ten seconds, within a minute of being sent",
        CHROME,
        soon=60.0,
        burst=5,
    ),
    Rule(
        "Apple Mail or Outlook, just sent",
        Opener.PREFETCH,
        "Apple Mail",
        "It came within seconds of being sent, with an agent that Apple Mail fetches ahead with.",
        "medama-io/go-useragent issue 10 (Apple Mail); warmbly/warmbly pull 569, 2026-09 (Outlook sends the same)",
        BARE,
        agent=r"applewebkit/605\.1\.15 \(khtml, like gecko\)$",
        soon=30.0,
    ),
)
"""In the order in which they are asked."""
