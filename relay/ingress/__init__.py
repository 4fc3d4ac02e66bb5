"""The SMTP ingress: how an application's mail comes in at the door.

    door.py        what the sessions of one process share; opens and closes
    connection.py  one client's bytes: lines in, replies out, TLS, PROXY, and how patient we are
    session.py     the SMTP verbs
    envelope.py    what MAIL and RCPT say
    login.py       AUTH: reads the exchange, asks for the token
    content.py     what follows DATA, up to the one true end of data
    intake.py      envelope and content -> submission -> reply
    inbox.py       what was received and is not read yet

`relay.smtpd` is the role: it starts processes, each with a door.
"""
