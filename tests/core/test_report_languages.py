"""What came of a mail, where the notice says it to people alone: that it arrived, that it is late, that it failed."""

from __future__ import annotations

import pytest

from relay.core import bounce, report
from relay.core.prose import ADDRESS
from relay.core.report import Kind
from tests.core.test_report import DAEMON, FAILED, ORIGINAL, dsn, mail, told
from tests.core.test_report_verdicts import RECEIPT

WHO = "\n\nreader@there.example\n"


@pytest.mark.parametrize(
    "text",
    [
        "Your message has been delivered to the following recipients:",
        "Delivery to these recipients or groups is complete, but no delivery notification was sent by the server:",
        "----- The following addresses had successful delivery notifications -----",
        "Die Zustellung an folgende Empfänger war erfolgreich:",
        "Die Zustellung an diese Gruppen ist abgeschlossen, aber es wurde keine Zustellungsbenachrichtigung gesendet:",
        "La remise est terminée, mais aucune notification de remise n'a été envoyée par le serveur :",
        "Votre message a été remis aux destinataires suivants :",
        "El mensaje se entregó a los siguientes destinatarios:",
        "Il messaggio è stato recapitato ai seguenti destinatari:",
        "您的邮件已成功送达:",
    ],
)
def test_news_that_it_arrived_is_no_failure(text: str) -> None:
    assert told(mail("Delivered: hello", text + WHO)) == [("reader@there.example", "delivered")]


@pytest.mark.parametrize(
    "text",
    [
        "Your message could not be successfully delivered to:",
        "Your message was delivered to two of three. It failed for:",
        "Die Zustellung an folgende Empfänger war nicht erfolgreich:",
        "Votre message n'a pas été remis aux destinataires suivants :",
        "El mensaje no se entregó a:",
        "Il messaggio non è stato recapitato a:",
        "A mensagem não foi entregue a:",
        "Сообщение не было успешно доставлено:",
    ],
)
def test_what_did_not_arrive_failed_however_it_is_said(text: str) -> None:
    assert told(mail("Mail", text + WHO)) == [("reader@there.example", "failed")]


@pytest.mark.parametrize(
    "text",
    [
        "Die Zustellung an folgende Empfänger wurde verzögert:",
        "DIES IST NUR EINE WARNUNG. Übermittlung an folgende Empfänger steht aus:",
        "La remise à ces destinataires ou groupes a été retardée :",
        "La entrega a estos destinatarios o grupos se ha retrasado:",
        "Il recapito ai seguenti destinatari è stato ritardato:",
        "A entrega a estes destinatários foi atrasada:",
        "De bezorging aan de volgende geadresseerden is vertraagd:",
        "Dostarczenie do następujących adresatów lub grup jest opóźnione:",
        "Доставка следующим получателям отложена:",
        *("Doručení se zpozdilo:", "Leveransen till följande mottagare är fördröjd:", "Levering er forsinket:"),
        *("Toimitus on viivästynyt:", "A kézbesítés késik:", "Teslim gecikti:", "배달이 지연되었습니다:"),
        *("Η παράδοση καθυστερεί:", "Доставку затримано:"),
        "次の受信者への配信が遅れています:",
        "此邮件尚未送达:",
    ],
)
def test_what_is_still_tried_is_late_in_any_language(text: str) -> None:
    assert told(mail("Status", text + WHO)) == [("reader@there.example", "delayed")]


def test_a_title_tells_of_a_delay() -> None:
    text = f"Entrega incompleta{WHO}"
    assert told(mail("Delivery Status Notification (Delay)", text)) == [("reader@there.example", "delayed")]
    assert told(mail("Delivery Status Notification (Failure)", text)) == [("reader@there.example", "failed")]


def test_what_the_original_is_called_says_nothing_of_its_fate() -> None:
    late = ORIGINAL.replace("Subject: hello", "Subject: Your order is delayed")
    raw = dsn(FAILED.replace("Action: failed\n", "")).replace(ORIGINAL.encode(), late.encode())
    raw = raw.replace(b"Undelivered Mail Returned to Sender", b"Undeliverable: Your order is delayed")
    assert told(raw) == [("reader@there.example", "failed")]


@pytest.mark.parametrize(
    ("fields", "action"),
    [
        ("Status: 2.1.5", "delivered"),
        ("Status: 4.4.1\nWill-Retry-Until: Fri, 27 Nov 2026 10:00:00 +0000", "delayed"),
        ("Status: 5.1.1", "failed"),
    ],
)
def test_where_no_action_is_told_the_status_tells(fields: str, action: str) -> None:
    assert told(dsn(f"Final-Recipient: rfc822; reader@there.example\n{fields}")) == [("reader@there.example", action)]


@pytest.mark.parametrize("name", ["用户@例子.中国", "пётр@пример.рф", "reader@ärzte.example"])
def test_an_address_of_any_script_is_read(name: str) -> None:
    raw = dsn(FAILED.replace("rfc822; reader@there.example", f"utf-8; {name}"), "message/global-delivery-status")
    assert told(raw) == [(name, "failed")]
    assert told(mail("Undelivered", f"<{name}>: 550 5.1.1 unknown")) == [(name, "failed")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("无法送达收件人a.b@there.example地址不存在", "a.b@there.example"),
        ("reader@there.example宛のメール", "reader@there.example"),
        ("'reader@there.example' on Friday", "reader@there.example"),
        ("o'brien@there.example", "o'brien@there.example"),
    ],
)
def test_an_address_ends_where_people_see_its_end(text: str, found: str) -> None:
    assert ADDRESS.findall(text) == [found]


def test_an_international_receipt_is_a_receipt() -> None:
    raw = RECEIPT.format(parameter="", subject="Read", text="It was read.", what="displayed", original=ORIGINAL)
    raw = raw.replace("message/disposition", "message/global-disposition")
    assert report.read(raw.encode()).kind is Kind.NONE


@pytest.mark.parametrize("sign", ["Auto-Submitted: auto-generated\n", "List-Unsubscribe: <https://shop.example/u>\n"])
def test_an_application_s_own_news_are_no_report(sign: str) -> None:
    """The last delivery to whomever they name would count as bounced."""
    head = f"From: Parcels <news@parcels.example>\nReturn-Path: <news@parcels.example>\nTo: app@here.example\n{sign}"
    said = "Your parcel could not be delivered to reader@there.example: 550 5.1.1 unknown user"
    assert report.read(mail("Delivery failed: your parcel", said, head)).kind is Kind.NONE
    assert report.read(mail("Delivery failed", said, head + DAEMON)).kind is Kind.NONE
    news = head.replace("Parcels <news@", "Parcels <bounce@").replace("Path: <news@", "Path: <7@")
    assert report.read(mail("Delivery failed", said, news)).kind is Kind.NONE
    assert report.read(mail("Delivery failed", said, DAEMON + sign.partition("\n")[0] + "\n")).kind is Kind.BOUNCE


BOUNCED = "This is what I got:\n\nreader@there.example\n550 5.1.1 User unknown\n\nIt could not be delivered."


@pytest.mark.parametrize(
    ("sender", "subject"),
    [
        *[
            ("Ada <ada@there.example>", title)
            for title in ("Undeliverable: hello", "Mail delivery failed", "R: Unzustellbar")
        ],
        *[("Bob <postmaster@there.example>", title) for title in ("Mail of yours to reader", "Re: your bounces")],
        ("nagios@there.example", "[ALERT] mail delivery failed"),
    ],
)
def test_who_has_an_address_of_his_own_to_get_bounces_at_sends_none(sender: str, subject: str) -> None:
    path = sender.rpartition("<")[2].strip("<>")
    head = f"From: {sender}\nReturn-Path: <{path}>\nTo: app@here.example\n"
    assert report.read(mail(subject, BOUNCED, head)).kind is Kind.NONE
    daemon = DAEMON.replace("<>", "<mailer-daemon@mx.example.com>")
    assert told(mail("hello", BOUNCED, daemon)) == [("reader@there.example", "failed")]


SOMEBODY = "From: Ada <ada@there.example>\nTo: app@here.example\n"
"""Not every mailbox keeps the Return-Path by which people are known."""

PASSED_ON = ("VL", "ODP", "RV", "I", "Отв", "[EXTERNAL] Fwd")
OTHER_MATTERS = (
    "Report Domain: here.example Submitter: there.example Report-ID: <1>",
    "Postfix SMTP server: errors from there.example[192.0.2.9]",
    *("Spam Quarantine Summary: 2 messages", "Meeting Forward Notification: budget"),
)


@pytest.mark.parametrize(
    ("subject", "said", "head"),
    [
        *((f"{mark}: Undeliverable: hello", BOUNCED, SOMEBODY) for mark in PASSED_ON),
        ("转发：退信通知", BOUNCED, SOMEBODY),
        *((title, "SPF failed: 3, rejected: 2\n\nreader@there.example\n", DAEMON) for title in OTHER_MATTERS),
        ("Your mails are rejected", "My server says:\n\nreader@there.example\n550 5.7.1 rejected\n", SOMEBODY),
        (
            "Delivery failed",
            "The courier says that the address is invalid.\n\nreader@there.example\n+1 550 222\n",
            SOMEBODY,
        ),
        (
            "Contact form: delivery problem",
            "E-Mail: reader@there.example\nIt could not be delivered\n",
            SOMEBODY,
        ),
    ],
)
def test_what_people_pass_on_or_servers_send_of_other_matters_is_no_report(subject: str, said: str, head: str) -> None:
    assert report.read(mail(subject, said, head)).kind is Kind.NONE


def test_signs_enough_make_up_for_a_sender_who_is_no_server() -> None:
    assert told(mail("Undeliverable: hello", BOUNCED, SOMEBODY)) == [("reader@there.example", "failed")]


def test_a_post_to_a_list_and_a_ticket_report_nothing() -> None:
    listed = "From: Joe <joe@there.example>\nReturn-Path: <owner-list@lists.example>\nList-Id: <list.lists.example>\n"
    assert report.read(mail("[list] delivery status: 550", BOUNCED, listed)).kind is Kind.NONE
    desk = "From: Desk <desk@there.example>\nReturn-Path: <>\nAuto-Submitted: auto-replied\n"
    said = "We received your request.\n\nreader@there.example\n"
    assert report.read(mail("[#881] Mail delivery failed", said, desk)).kind is Kind.AUTO_REPLY


def test_a_customer_s_complaint_about_a_message_is_none_of_a_machine() -> None:
    raw = (
        "From: Ada <ada@there.example>\nSubject: My complaint about message 4711\n"
        f"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n{ORIGINAL}\nHi\n--b--\n"
    )
    assert report.read(raw.encode()).kind is Kind.NONE


@pytest.mark.parametrize(
    "subject",
    [
        *("Automatische Antwort: hello", "Respuesta automática: hello", "Automatisch antwoord: hello"),
        *("Autosvar: hello", "Odpowiedź automatyczna: hello", "Автоматический ответ: hello", "自动答复: hello"),
        *(
            "Răspuns automat: hello",
            "Αυτόματη απάντηση: hello",
            "Автоматична відповідь: hello",
            "תשובה אוטומטית: hello",
        ),
    ],
)
def test_who_is_away_says_so_in_his_language(subject: str) -> None:
    head = "From: Reader <reader@there.example>\nTo: app@here.example\nAuto-Submitted: auto-generated\n"
    assert report.read(mail(subject, "Bis Montag.", head)).kind is Kind.AUTO_REPLY


@pytest.mark.parametrize(
    ("said", "category"),
    [
        ("User mailbox exceeds allowed size", "mailbox_full"),
        ("552 5.2.2 Mailbox size limit exceeded", "mailbox_full"),
        ("552 message size exceeds the limit", "too_large"),
        ("No mx record found for domain=there.example", "unknown_domain"),
        ("they would have exceeded their mailbox size limit", "mailbox_full"),
        ("El buzón del destinatario está lleno", "mailbox_full"),
        ("La boîte aux lettres du destinataire est pleine", "mailbox_full"),
        ("La cassetta postale del destinatario è piena", "mailbox_full"),
        ("A caixa de correio do destinatário está cheia", "mailbox_full"),
        ("Het postvak van de geadresseerde is vol", "mailbox_full"),
        ("受信者のメールボックスがいっぱいです", "mailbox_full"),
        ("Die eingegebene E-Mail-Adresse konnte nicht gefunden werden", "unknown_user"),
        ("L'adresse de messagerie que vous avez entrée est introuvable", "unknown_user"),
        ("No se encontró la dirección de correo electrónico", "unknown_user"),
        ("Impossibile trovare l'indirizzo di posta elettronica", "unknown_user"),
        ("O endereço de email inserido não foi encontrado", "unknown_user"),
        ("Het e-mailadres dat u hebt ingevoerd, kan niet worden gevonden", "unknown_user"),
        ("Den angivne mailadresse blev ikke fundet", "unknown_user"),
        ("Podany adres e-mail nie został znaleziony", "unknown_user"),
        ("car le domaine there.example est introuvable", "refused"),
        ("554 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.1", "blocklisted"),
        ("Benutzer reader nicht im Domino-Verzeichnis aufgeführt", "unknown_user"),
    ],
)
def test_what_is_against_it(said: str, category: str) -> None:
    found = report.read(mail("Undelivered", f"<reader@there.example>: {said}"))
    assert [bounce.judge(one).category for one in found.recipients] == [category]
