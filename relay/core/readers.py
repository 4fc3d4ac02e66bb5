"""What people read mail with, by the user agent: mail clients and the browsers that webmail is read in.

Samples are agents; patterns are searched in the lower-cased agent and take time linear in its length. Several words
that must all be there are asked for one by one (`all_of`): with many `.*` in a row it would grow with their power.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)
BARE = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"


@dataclass(frozen=True, slots=True)
class Client:
    name: str
    sample: str
    agent: str
    regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", re.compile(self.agent))


def all_of(*patterns: str) -> str:
    return "^" + "".join(f"(?=.*{pattern})" for pattern in patterns)


IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
ANDROID = "Mozilla/5.0 (Linux; Android 14; Pixel 8{}) AppleWebKit/537.36 (KHTML, like Gecko) {} Mobile Safari/537.36"

CLIENTS: tuple[Client, ...] = (
    # Mail clients, by their names
    Client(
        "Outlook",
        "Mozilla/4.0 (compatible; ms-office; MSOffice 16)",
        r"\bms-office\b|\bmsoffice\b|\bmicrosoft outlook\b",
    ),
    Client("Outlook", CHROME + " Edg/126.0.0.0 OneOutlook/1.2024.516.400", r"\boneoutlook\b"),
    Client("Outlook", "Outlook-iOS/709.2189947.prod.iphone (3.24.0)", r"\boutlook-(ios|android)\b|^outlook/\d"),
    Client("Outlook", "MacOutlook/16.78.23100802 (Intel Mac OS X Version 13.5)", r"\bmacoutlook\b"),
    Client("Outlook Express", "Outlook-Express/7.0 (MSIE 7.0; Windows NT 6.1; Trident/7.0)", r"\boutlook-express\b"),
    Client(
        "Thunderbird",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunderbird/128.3.0",
        r"\b(thunderbird|betterbird|icedove|shredder)/",
    ),
    Client(
        "Windows Mail",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; WebView/3.0) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/70.0.3538.102 Safari/537.36 Edge/18.19042",
        r"\bwebview/3\.0\b|\bwindows live mail\b|^windowsmail/",
    ),
    Client(
        "Lotus Notes",
        "Mozilla/4.0 (compatible; Lotus-Notes/6.0; Windows-NT)",
        r"\blotus-notes\b|\b(hcl|ibm)[ -]notes\b",
    ),
    Client("Airmail", "Airmail 1.0 rv:148 (Macintosh; Mac OS X 10.8.3; en_BE)", r"\bairmail\b"),
    *(
        Client(name, f"{name}/1.0", rf"\b{re.escape(name.lower())}\b")
        for name in (
            *("eM Client", "Mailspring", "Mailbird", "Postbox", "SeaMonkey", "BlueMail", "Superhuman", "Foxmail"),
            *("MailMate", "Evolution", "KMail", "Claws Mail", "The Bat", "Sylpheed", "Polymail", "Eudora", "Tutanota"),
            *("K-9 Mail", "FairEmail", "AquaMail", "MailDroid", "Edison Mail", "Canary Mail", "Mimestream", "Zimbra"),
            *("IncrediMail", "PocoMail", "GyazMail", "Geary", "Balsa", "Trojita", "Nine"),
        )
    ),
    Client("eM Client", "eMClient/9.3.6041.0", r"\bemclient/"),
    Client("Naver Mail", "NaverMailApp/2.2.2 (Android 10; SM-G986N)", r"\bnavermailapp/"),
    Client("Mail Master", CHROME + " MailMasterPC/4.15.6", r"\bmailmaster(pc|_\w+)?/"),
    Client("Barca", "BarcaPro/1.4 L.1001", r"^barca(pro)?/"),
    Client("MailBar", "MailBar/1.3.2 (Mac OS X Version 10.11.1)", r"^mailbar/"),
    Client("Spark", "Spark/3.5.2 CFNetwork/1410.0.3 Darwin/22.6.0", r"^spark/"),
    Client(
        "Yahoo Mail",
        IPHONE + " Mobile/15E148 YahooMobileMail/6.0",
        r"\byahoomobile|\byahoo(%20| )?mail/|\byahoo\.ymail/",
    ),
    Client(
        "Apple Mail", "Mail/3731.700.6 CFNetwork/1410.0.3 Darwin/22.6.0", all_of(r"\bcfnetwork/") + r"(apple ?)?mail/"
    ),
    # Browsers, where webmail is read: the many that also call themselves Chrome or Safari come first
    Client("Edge", CHROME + " Edg/126.0.0.0", r"\bedg(e|a|ios)?/\d"),
    Client("Opera", CHROME + " OPR/111.0.0.0", r"\b(opr|opios|opt|opera|opera mini)/\d"),
    Client("Vivaldi", CHROME + " Vivaldi/6.8", r"\bvivaldi/"),
    Client("Yandex Browser", CHROME + " YaBrowser/24.6", r"\byabrowser/"),
    Client("Samsung Internet", ANDROID.format("", "SamsungBrowser/25.0 Chrome/121.0.0.0"), r"\bsamsungbrowser/"),
    Client("UC Browser", ANDROID.format("", "Version/4.0 Chrome/100.0.0.0 UCBrowser/13.4"), r"\bu(c|bc)browser/"),
    Client("Silk", ANDROID.format("", "Silk/126.2 like Chrome/126.0"), r"\bsilk/"),
    Client("WeChat", IPHONE + " Mobile/15E148 MicroMessenger/8.0.49", r"\bmicromessenger/"),
    Client("QQ Browser", CHROME + " QQBrowser/13.0", r"\bm?qqbrowser/"),
    Client("DuckDuckGo", IPHONE + " Version/17.5 Mobile/15E148 DuckDuckGo/7 Safari/605.1.15", r"\bduckduckgo/|\bddg/"),
    Client("Google app", IPHONE + " GSA/320.0 Mobile/15E148 Safari/604.1", r"\bgsa/"),
    Client(
        "Firefox",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0",
        all_of(r"\b(firefox|fxios|focus|librewolf|waterfox|palemoon)/\d"),
    ),
    Client("Android app", ANDROID.format("; wv", "Version/4.0 Chrome/126.0.0.0"), all_of(r"\bandroid\b", r"; wv\)")),
    Client("Chrome", CHROME, r"\b(chrome|chromium|crios|crmo)/\d"),
    Client(
        "Android app",
        "Mozilla/5.0 (Linux; U; Android 4.0.3; de-de; Galaxy S II Build/GRJ22) AppleWebKit/534.30 (KHTML, like Gecko) "
        "Version/4.0 Mobile Safari/534.30",
        all_of(r"\bandroid\b", r"\bapplewebkit/") + r"|^dalvik/|^(?!mozilla/)[^(]*\(([^)]*; )?android \d",
    ),
    Client(
        "Internet Explorer",
        "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
        r"\bmsie \d|\btrident/",
    ),
    Client(
        "Safari",
        IPHONE + " Version/17.5 Mobile/15E148 Safari/604.1",
        all_of(r"\bapplewebkit/", r"\bversion/", r"\bsafari/"),
    ),
    Client("Apple Mail", IPHONE + " Mobile/15E148", all_of(r"\b(iphone|ipad|ipod)\b", r"\bapplewebkit/", r"\bmobile/")),
    Client("Apple Mail or Outlook", BARE, r"\bapplewebkit/605\.1\.15 \(khtml, like gecko\)$"),
    Client(
        "Apple Mail",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_6) AppleWebKit/601.7.8 (KHTML, like Gecko)",
        all_of(r"\bmac os x\b", r"\bapplewebkit/[\d.]+ \(khtml, like gecko\)( version/[\d.]+)?$"),
    ),
    Client(
        "WebKit",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15",
        r"\bapplewebkit/[\d.]+\+? \(khtml, like gecko\)",
    ),
    Client("Konqueror", "Mozilla/5.0 (compatible; Konqueror/4.5) KHTML/4.5.4 (like Gecko)", r"\bkonqueror/"),
    Client(
        "Apple app",
        "Mymail/12 CFNetwork/1410.0.3 Darwin/22.6.0",
        r"\bcfnetwork/[\d.]+ darwin/"
        r"|\((iphone|ipad|ipod touch); (ios|ipados) \d"  # AFNetworking's default
        r"|\b(iphone|ipad|ipod)/[\d.]+ hw/",  # GTMSessionFetcher's, in Google's apps
    ),
    Client(
        "Gecko",
        "Mozilla/5.0 (X11; Linux x86_64; rv:102.0) Gecko/20100101",
        r"\brv:[\d.]+\) gecko/\d{8}",
    ),
)
"""What people read mail with; the first that fits names it."""
