"""What reports say, as data: the words of many servers and languages, as regular expressions of bounded cost.

A phrase belongs here when it is how a kind of server, or a language, says this; not when one message says it.
"""

from __future__ import annotations

import re


def _any(*phrases: str, before: str = "", after: str = "", flags: int = 0) -> re.Pattern[str]:
    return re.compile(f"{before}(?:{'|'.join(phrases)}){after}", re.IGNORECASE | flags)


MAIL = r"(?:e-?mail|mail|message|letter)s?"
MACHINE_SENDER = _any(
    r"mailer[-_. ]?daemon",
    r"mail[-_. ]?daemon",
    r"mdaemon",
    r"post[_-]?master",
    r"bounce",
    r"undeliver",
    r"mail[-. ]?delivery[-. ]?(?:system|subsystem|service|agent)",
    r"delivery (?:notification|status|agent)",
    r"mail (?:system|administrator)",
    r"system administrator",
    r"mailadm",
    r"smtp[-_ ](?:gateway|server)",
    r"mmsc ndr",  # gateways to mobile telephones
    r"no-?reply@sns\.amazonaws",  # Amazon tells of bounces through its notification service
)
"""Who sends reports: looked for in From."""

UNANSWERED = _any(r"no[-_.]?reply", r"do[-_.]?not[-_.]?reply")
"""Who takes no answer, and is no person: looked for in From."""

FAILURE_SUBJECT = _any(
    r"undeliver(?:ed|able)",
    r"non-? ?deliver",
    r"deliver(?:y|ing)[-: ]+(?:\w+ ){0,3}(?:fail|problem|error|report|status|delay|notif)",
    r"fail\w{0,20} (?:to )?deliver",
    r"delivery (?:has )?(?:been )?(?:fail|delay)",
    r"failure (?:notice|\()",
    r"failed mail",
    r"return(?:ed|ing)? (?:e-?mail|mail|to sender)",
    r"mail(?:ing)?[- ]+(?:\w+ )?(?:fail|error|delivery)",
    r"mail system error",
    r"could not (?:be )?(?:send|deliver|sent)",
    r"error sending",
    rf"{MAIL} (?:\w+ ){{0,2}}(?:delayed|bounced|rejected|returned|blocked)|{MAIL} (?:\w+ )?status",
    rf"(?:bounced?|rejected) {MAIL}",
    r"automatically rejected|^rejected: ",
    r"warning[-: ]+(?:message|could not|mail|delivery)",
    r"permanent (?:delivery )?(?:failure|error)",
    r"processing error",
    r"user unknown|unknown (?:user|recipient)",
    r"unzustellbar|nicht zugestellt|zustell|konnte nicht|fehlgeschlagen",  # German
    r"échec|non remis|impossible de",  # French
    r"no se (?:ha )?p(?:udo|uede)|notificaci[oó]n (?:de |sobre )?(?:el )?estado",  # Spanish
    r"mancat[ao] (?:consegna|recapito)",  # Italian
    r"niet bezorgd",  # Dutch
    r"não (?:entregue|foi)",  # Portuguese
    r"недоставл|не доставлен",  # Russian
    r"配信|送信|エラー",  # Japanese
    r"退信|退回",  # Chinese
)
"""How reports are titled."""

PLAINLY = _any(
    r"undeliver",
    r"non-? ?deliver",
    r"mail delivery",
    r"delivery (?:status|fail|notification)",
    r"returned mail",
    r"failure notice",
    before=r"\W{0,5}",
)
"""Titles that begin as hardly anything but a report does: matched at the beginning."""

COMPLAINT = _any(r"complaint about message from \[?[\da-f]{1,4}[.:]", before=r"\s{0,5}")
"""How Hotmail titles complaints, which have no type of their own; the number is the server's that sent the mail."""

NO_FAILURE = _any(
    r"\breport domain: ",  # DMARC and TLS (RFC 7489 7.2.1.1, RFC 8460 5.3)
    r"quarantine|spam (?:summary|report)|\bdigest\b",
    r"meeting forward notification",
    r"postfix smtp (?:server|client): errors",  # to postmasters, of others' mail
)
"""How mail is titled that servers send of other matters."""

HELD = _any(
    r"(?:await|wait|pend)\w* (?:for |by )?(?:\w+ ){0,2}(?:moderat|approv|confirm)\w*",
    r"(?:approval|moderation|confirmation) (?:is )?(?:pending|required|needed)",
    r"\bheld (?:for|until|because)\b",
    r"freigabe (?:durch|wartet)|wartet auf (?:die )?(?:freigabe|genehmigung|moderation)",  # German
    r"en attente (?:de |d')(?:modération|approbation|validation)",  # French
    r"pendiente de (?:aprobación|moderación)|in attesa di (?:approvazione|moderazione)",  # Spanish, Italian
)
"""What is said of mail that somebody has yet to let through."""

AWAY = _any(
    r"out of (?:the )?office",
    r"auto(?:matic|mated)?[-_ ]?(?:re(?:ply|sponse|sponder))",
    r"autorespon",
    r"vacation",
    r"on (?:holiday|leave)",
    r"away (?:from|until)",
    r"absence",
    r"abwesen",
    r"fuera de (?:la )?oficina",
    r"r[ée]ponse automatique",
    r"risposta automatica",
    r"resp(?:osta|uesta) autom",
    r"automat(?:ische antwort|isch antwoord|isk svar|ická odpověď|ikus válasz)|automaattinen vastaus|autosvar",
    r"odpowiedź automatyczna|automatyczna odpowiedź",
    r"otomatik yanıt|автоматический ответ|автоответ|автоматична відповідь|автоматичен отговор",
    r"răspuns automat|(?:automatski|samodejni) odgovor|automatinis atsakymas|αυτόματη απάντηση",
    r"trả lời tự động|balasan otomatis|رد تلقائي|תשובה אוטומטית|การตอบกลับอัตโนมัติ",
    r"自動(?:応答|返信)|不在|自动(?:答复|回复)|自動(?:回覆|回復)|자동 ?(?:회신|응답)",
)
"""How auto-replies are titled."""

FAILED = _any(
    r"(?:could|can|did|was|were|has|have) ?n(?:o|')t (?:be(?:en)? )?(?:able to )?(?:be )?"
    r"(?:deliver|reach|sen[dt]|accept|process|relay|complete|find)",
    r"unable to (?:deliver|send|relay|complete|process)",
    r"undeliver|non-? ?deliver",
    rf"(?:deliver\w{{0,20}}|{MAIL}|recipients?|address(?:es)?|problems?)[\w ,'()/]{{0,60}}\b"
    r"(?:fail\w*|errors?|problems?|reject\w*|bounced|invalid)",
    r"fail\w{0,20} (?:to )?(?:deliver|for|in delivering)",
    r"permanent(?:ly)? (?:fatal )?(?:error|fail\w*|delivery)",
    r"fatal errors",
    r"returned (?:to sender|mail|because|by|for)|has been returned",
    r"rejected|not known|unknown (?:user|address|recipient)|user unknown|no such",
    r"did not reach|does(?:n't| not) (?:exist|have)|not exist|was not",
    r"delivery error|error (?:occurred|delivering)|failure",
    r"nicht zugestellt|zustellung|fehler|fehlgeschlagen",
    r"n'a (?:pas )?(?:pu|été)|échec|impossible",
    r"no (?:se )?(?:ha )?(?:pudo|podido|puede|fue)|imposible",
    r"non (?:è stato|ha potuto|può|e' stato)|impossibile",
    r"niet (?:worden )?(?:bezorgd|afgeleverd)",
    r"kunde inte",
    r"não (?:foi|pôde|p[ôo]de)",
    r"не может|не доставлен|не удалось",
    r"配信|配達|送信でき|届けられ|できませんでした|エラー",
    r"无法|退回",
)
"""What is said of mail that did not arrive."""

DELAYED = _any(
    r"has(?: been|n't been| not been)? (?:delayed|not yet been delivered)",
    r"not yet been delivered",
    r"still (?:being retried|trying|awaiting)",
    r"will (?:continue to (?:be )?(?:try|tri|attempt|made)|retry|be retried|keep trying|try again)",
    r"will attempt (?:to )?(?:re)?deliver",
    r"attempts will continue",
    r"(?:just|only) a warning|warning (?:message )?only",
    r"not need to (?:resend|re-send|take)",
    r"could not send mail for past|status notification \(delay",
    r"(?:delivery|message|mail) (?:is |has been )?delayed|is delayed",
    r"delayed (?:for )?(?:more than )?\d+ (?:sec|min|hour|day)",
    r"wird (?:weiter|erneut)|versucht (?:weiter|erneut)|nur eine warnung",  # German
    r"wurde verzögert|zustellung verzögert",
    r"retardée?s? ?:|a été retardé|pas encore été (?:remis|délivré)",  # French
    r"retrasad[ao] ?:|se ha retrasado|todavía no se ha entregado",  # Spanish
    r"ritardat[ao] ?:|è stat[ao] ritardat",  # Italian
    r"atrasad[ao] ?:|foi atrasad",  # Portuguese
    r"vertraagd ?:|is vertraagd",  # Dutch
    r"jest opóźnion|nie została jeszcze dostarczon|zpo[zž]d|dosud nebyl\w? doručen",  # Polish, Czech
    r"är fördröjd|ännu inte levererats|er forsinket|endnu ikke leveret|ikke levert ennå",  # Swedish, Danish, Norwegian
    r"viivästyn|ei ole vielä toimitettu|késik|még nem lett kézbesítve",  # Finnish, Hungarian
    r"gecikti|henüz teslim edilme|지연되|아직 배달되지|καθυστερεί",  # Turkish, Korean, Greek
    r"затримано|ще не доставлено",  # Ukrainian
    r"отложена|задерж(?:ка|ана|ано)",  # Russian
    r"配信の?遅延|配信が遅れ|邮件延迟|尚未(?:送达|投递)|延遲",  # Japanese, Chinese
)
"""What is said of mail that is still tried."""

DELIVERED = _any(
    r"(?<!not )(?<!not be )(?<!not been )\bsuccess(?:ful(?:ly)?)? (?:mail )?(?:deliver|relayed)\w*",
    r"(?:delivered|relayed) successfully",
    r"(?<!not )(?:was|were|is|has been|have been) (?:delivered|relayed) to",
    r"delivery to these recipients or groups is complete",
    r"(?<!nicht )erfolgreich",  # German
    r"wurde (?:an )?(?:die )?(?:folgende[nr]? empfänger\w* )?(?:zugestellt|übermittelt)",
    r"zustellung an (?:die )?folgenden? empfänger (?:oder gruppen )?(?:war|ist) erfolgreich",
    r"zustellung an [\w ]{1,60} ist abgeschlossen, aber [\w ]{0,40}keine zustellungsbenachrichtigung",
    r"a (?:bien )?été remis aux?|remise réussie",  # French
    r"est terminée, mais aucune notification de remise n'a été envoyée",
    r"(?<!no )se (?:ha )?entreg(?:ó|ado) a",  # Spanish
    r"(?<!non )è stato (?:recapitato|consegnato)",  # Italian
    r"(?<!não )foi entregue",  # Portuguese
    r"is (?:afgeleverd|bezorgd) (?:bij|aan)",  # Dutch
    r"(?<!не )(?<!не был )(?<!не было )успешно доставлен\w*",  # Russian
    r"配信されました|配信が完了|已(?:成功)?(?:送达|投递|传递)",  # Japanese, Chinese
)
"""What is said of mail that arrived."""

NO_SUCH_USER = (
    r"unbekannt(?!er fehler)|existiert nicht|nicht im .{0,30}(?:verzeichnis|adressbuch)"
    r"|n'existe pas|(?<!erreur )inconnue?\b|destinataire invalide|no existe|(?<!error )desconocid[oa]"
    r"|non esiste|inesistente|(?<!errore )sconosciut[oa]|não existe|inexistente"
    r"|adresse\b[^.;]{0,60}(?:nicht gefunden|introuvable)"  # of domains the same is said
    r"|direcci[oó]n\b[^.;]{0,60}no se (?:ha )?enc|no se (?:ha )?enc[\w ]{1,30}direcci[oó]n"
    r"|indirizzo\b[^.;]{0,60}non (?:è stato )?trovato|impossibile trovare l'indirizzo"
    r"|endereço\b[^.;]{0,60}não (?:foi |pôde ser )?encontrado|adres\b[^.;]{0,60}niet (?:worden )?gevonden"
    r"|adresse[nr]?\b[^.;]{0,60}ikke (?:fundet|funnet)|adressen\b[^.;]{0,60}inte hittas"
    r"|adres\b[^.;]{0,60}nie został znaleziony|nie znaleziono adresu|adresi\b[^.;]{0,60}bulunamadı"
    r"|bestaat niet|onbekend(?!e fout)|nie istnieje"
    r"|не существует|не найден|неизвест(?!н\w{1,3} ошибк)|存在しま|見つかりません|宛先不明|不存在|无此用户"
)
"""What servers say in other languages than English where they know no such mailbox."""

EXPIRED = _any(
    r"\b(?:message|envelope|delivery(?: time)?|mail|lifetime|queue time|deadline)\b[\w ,:-]{0,20} expired",
    r"expired (?:in|from) (?:the )?queue",
    r"retry time ?out exceeded",
    r"failing for a long time|long failure period",
    r"too long in (?:the )?queue|queue (?:for )?too long",
    r"(?:not|n't) be delivered (?:for|within|in) (?:the last )?\d+",
    r"unable to deliver in \d+",
    r"deliver for the last \d+",
    r"maximum (?:queue|retry) time|exceeded (?:the )?(?:maximum )?(?:queue|retry) (?:time|period)",
)
"""Time ran out: what was against the delivery all the while is another matter."""

UNREACHABLE = _any(
    r"\btimed out\b|\btime-?out\b",
    r"no (?:answer|response) from",
    r"not accept our requests to connect",
    r"(?:unable|not able|n't able|failed) to (?:establish|connect|contact)|could(?: not|n't) connect",
    r"socket error",
    r"connection (?:refused|lost|dropped)",
)
"""Nobody answered: true today, perhaps not tomorrow."""

AGAINST_ADDRESS = _any(
    r"\bfull\b|quota",
    r"unknown|no such|not exist|invalid|disabled|inactive",
    r"\bDNS\b|name server|name lookup|look-?up fail|no (?:MX|mail exchanger)|host (?:not|or domain name not) found",
    r"loop|too (?:many|large|big)",
)
"""What is said against the address, its host or the mail: then it was not time that failed."""

_COPY = rf"(?:original|returned|undelivered|bounced|rejected|failed|your|unsent|old) (?:{MAIL} )?(?:{MAIL}|text)(?:'s)?"
ORIGINAL = _any(
    r"below this line is a copy",
    rf"(?:this is|here is|below is|enclosed is|attached is)?[ \w]{{0,12}}a copy of (?:the|your) (?:original )?{MAIL}",
    rf"(?:the )?{_COPY} ?(?:headers?|text|content|follows?|reads|below|attached|was(?=[ :]*$)|:|-|$)",
    r"(?:your )?(?:original )?message (?:is|was)? ?(?:as )?follows",
    r"(?:the )?(?:first|following|top)[\w ,]{0,30}(?:lines?|part|kb|bytes) of (?:the|your) (?:original )?message",
    r"message headers? follow|message (?:text|contents?|header|follows)\b",
    r"(?:the )?headers? (?:of|from) (?:the )?(?:original|your|undelivered|message)",
    r"(?:begin|start) of (?:returned|original|your)",
    r"forwarded message|mail contents?|transcript of (?:the )?original",
    r"ursprüngliche nachricht|message d'origine|mensaje original|messaggio originale",
    r"текст письма|原始|元のメッセージ",
    before=r"^[ \t>*=_+#.-]{0,80}",
    flags=re.MULTILINE,
)
"""Lines after which the copy of the original message comes."""

MEANT = _any(
    r"rcpt to\s?:?",
    r"recipient(?:s|\(s\))?(?: address)?(?: is| was|:|\s)",
    r"addressed(?: to|,)",
    rf"deliver(?:y|ed|ing)?(?: (?:of )?(?:your |the )?{MAIL})?(?: has)?(?: failed)?(?: sent)? (?:to|for)"
    r"(?: (?:the )?(?:following )?(?:address|recipient|user|mailbox|e-?mail(?: address)?)(?:es|s)?)?",
    rf"{MAIL}(?: (?:sent|you sent|addressed))?(?: could not be delivered)? to"
    r"(?: (?:the )?(?:address|recipient|user|following)\w*)?",
    r"failed (?:address(?:es)?|recipients?|for)",
    r"undeliverable +to",
    r"unknown (?:user|recipient|address)",
    r"user|mailbox|account|address(?: rejected)?|destination",
    r"generated from|originally|expanded from|smtp|intended for|attempts|for|to",
    r"an|an die adresse|adresse|destinatario|пользовател\w*|получател\w*|宛先?",
    after=r"[\s:=]{0,20}[<\"'(\[]{0,3}$",
)
"""Words right before an address that the report is about."""

NOT_MEANT = _any(
    r"\bfrom",
    r"envelope-from|sender(?: address)?|mail from|return-path|absender|de la part de",
    r"contact|by|reply[- ]?to|e-?mail us(?: at)?|help(?:desk)?|support|assistance|abuse",
    r"please (?:e-?mail|write|send|contact)[\w ]{0,30}",
    r"postmaster(?: at)?",
    r"report(?:ed)?(?: this)?(?: \w+)? to|forward(?:ed)?(?: this)?(?: \w+){0,3} to",
    r"visit|http\S{0,200}|cc|message-?id|id",
    r"auth(?:enticated|enticated sender)?(?: user)?|yourself|identify",
    after=r"\s{0,5}[:=]?\s{0,5}[<\"'(\[]{0,3}$",
)
"""Words right before an address that is somebody else's."""

SERVICE = _any(
    r"mailer-daemon|mail-daemon|postmaster|abuse|hostmaster|support|helpdesk|no-?reply|listmaster|webmaster|root",
    r"info-?desk|unsubscribe",
    before="^",
    after="@",
)
"""Addresses that help, rather than fail."""
