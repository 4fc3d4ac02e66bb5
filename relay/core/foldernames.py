"""What web mail and mail programs call the folders of a mailbox, language by language: for servers that flag none.

Only names that are sure: an outbox is no Sent, and a folder that is not found does less harm than the wrong one.
"""

from __future__ import annotations

SENT = """
Sent, Sent Items, Sent Messages, Sent Mail, Sent Email, Sent E-mail, Sent-Mail
Gesendet, Gesendete Objekte, Gesendete Elemente, Gesendete Nachrichten, Gesendete Mails, Gesendete E-Mails
Messages envoyés, Éléments envoyés, Envoyés, Objets envoyés, Courrier envoyé, Mails envoyés, Courriers envoyés
Enviados, Elementos enviados, Mensajes enviados, Correo enviado
Itens enviados, Mensagens enviadas, Enviadas, E-mails enviados, Correio enviado
Posta inviata, Inviati, Messaggi inviati, Elementi inviati, Inviata
Verzonden, Verzonden items, Verzonden objecten, Verzonden berichten
Skickat, Skickade, Skickade objekt, Skickade meddelanden
Sendt, Sendte elementer, Sendt post, Sendte, Sendt e-post, Sendte e-poster
Lähetetyt, Lähetetyt viestit
Saadetud, Saadetud kirjad
Nosūtītie, Nosūtītās vēstules
Išsiųsti, Išsiųsti laiškai, Išsiųstieji
Wysłane, Elementy wysłane, Wysłane elementy
Odeslané, Odeslaná pošta, Odeslané položky
Odoslané, Odoslaná pošta, Odoslané položky
Poslano, Poslana pošta, Poslane stavke
Elküldött, Elküldött elemek, Elküldött üzenetek, Elküldött levelek
Trimise, Elemente trimise, Mesaje trimise
Απεσταλμένα, Σταλμένα
Gönderilmiş Öğeler, Gönderilmiş Postalar, Gönderilenler, Gönderilmiş
Отправленные, Отправленные письма
Надіслані, Відправлені
Изпратени
Послато
Item Terkirim, Terkirim
Đã gửi, Thư đã gửi
ส่งแล้ว, จดหมายที่ส่งแล้ว
المرسلة, البريد المرسل, الرسائل المرسلة, العناصر المرسلة
דואר שנשלח, פריטים שנשלחו, נשלח
ارسال شده
भेजे गए, भेजा गया
送信済み, 送信済みアイテム, 送信済みメール, 送信済みトレイ
已发送, 已发送邮件, 已发邮件
已傳送, 寄件備份, 已寄出, 寄件備份匣
보낸편지함, 보낸 편지함, 보낸 메일함
"""
TRASH = """
Trash, Deleted Items, Deleted Messages, Deleted, Bin, Rubbish, Wastebasket
Papierkorb, Gelöscht, Gelöschte Objekte, Gelöschte Elemente, Gelöschte Nachrichten
Corbeille, Éléments supprimés, Messages supprimés
Papelera, Papelera de reciclaje, Elementos eliminados, Eliminados, Mensajes eliminados
Lixeira, Lixo, Itens excluídos, Itens eliminados, Excluídos, Mensagens apagadas
Cestino, Posta eliminata, Elementi eliminati
Prullenbak, Verwijderd, Verwijderde items, Verwijderde objecten
Papperskorgen, Papperskorg, Borttaget, Borttagna objekt
Papirkurv, Papirkurven, Slettet post, Slettede elementer, Slettede
Roskakori, Poistetut, Poistetut viestit
Prügikast, Kustutatud
Atkritne
Šiukšlinė
Kosz, Elementy usunięte, Usunięte
Koš, Odstraněná pošta, Odstraněné
Kôš, Odstránené
Smeti, Smeće, Izbrisano
Lomtár, Kuka, Törölt elemek
Coș de gunoi, Coş, Elemente șterse
Κάδος, Κάδος απορριμμάτων, Διαγραμμένα, Απορρίμματα
Çöp Kutusu, Silinmiş Öğeler, Çöp
Корзина, Удаленные, Удалённые
Кошик, Видалені
Кошче, Изтрити
Sampah, Tong Sampah
Thùng rác
ถังขยะ
سلة المهملات, المهملات, العناصر المحذوفة
אשפה, פריטים שנמחקו
زباله‌دان
ゴミ箱, ごみ箱, 削除済みアイテム
已删除, 已删除邮件, 已刪除的郵件, 刪除的郵件
휴지통, 지운 편지함
"""
DRAFTS = """
Drafts, Draft
Entwürfe, Entwurf
Brouillons, Brouillon
Borradores, Borrador
Rascunhos
Bozze
Concepten
Utkast
Kladder, Kladde
Luonnokset
Mustandid
Melnraksti
Juodraščiai
Kopie robocze, Szkice, Wersje robocze
Koncepty, Rozepsané
Osnutki, Nacrti, Skice
Piszkozatok
Ciorne, Schițe
Πρόχειρα
Taslaklar, Taslak
Черновики
Чернетки
Чернови
Draf, Konsep
Thư nháp, Bản nháp
ร่างจดหมาย, จดหมายร่าง
المسودات, مسودات
טיוטות
پیش‌نویس‌ها
ड्राफ़्ट
下書き
草稿, 草稿箱, 草稿匣
임시보관함, 임시 보관함
"""
JUNK = """
Junk, Spam, Junk E-mail, Junk Email, Junk Mail, Bulk Mail, Bulk
Spamverdacht, Spam-Verdacht, Junk-E-Mail, Unerwünscht, Unerwünschte Werbung
Courrier indésirable, Indésirables, Pourriel, Pourriels
Correo no deseado, Correo basura
Lixo eletrônico, Lixo eletrónico, Lixo electrónico
Posta indesiderata, Indesiderata
Ongewenste e-mail, Ongewenst, Ongewenste reclame
Skräppost
Uønsket e-mail, Uønsket post, Uønsket e-post, Søppelpost
Roskaposti
Rämpspost
Mēstules
Brukalas
Wiadomości-śmieci, Niechciane
Nevyžádaná pošta, Nevyžádané
Nevyžiadaná pošta
Neželena pošta, Neželjena pošta
Levélszemét
Gereksiz, Gereksiz E-posta, İstenmeyen, Önemsiz E-posta
Ανεπιθύμητα, Ανεπιθύμητη αλληλογραφία
Спам, Нежелательная почта
Небажана пошта
Нежелана поща
Thư rác
อีเมลขยะ, จดหมายขยะ
البريد العشوائي, البريد غير الهام
דואר זבל, ספאם
هرزنامه
迷惑メール
垃圾邮件, 垃圾郵件, 垃圾電郵
스팸메일함, 스팸 메일함, 스팸함, 정크 메일
"""
ALL = """
All Mail
Alle Nachrichten
Tous les messages
Todos los mensajes
Todos os e-mails
Tutti i messaggi
Alle e-mail
Alla mejl
All e-post
Kaikki viestit
Вся почта
Уся пошта
Všechny zprávy
Összes levél
Tüm Postalar
すべてのメール
所有邮件, 所有郵件
전체보관함
"""


def listed(table: str) -> tuple[str, ...]:
    """The names of a table, the likeliest first."""
    return tuple(name.strip() for line in table.strip().splitlines() for name in line.split(","))
