"""Coverage-guided fuzzing of what strangers' bytes reach first: `make fuzz`.

    make fuzz                                # every target for its share of FUZZ_SECONDS (60)
    python -m tests.fuzz --list              # the targets, and what each holds to
    python -m tests.fuzz session a-crash     # one input again, with the traceback
    python -m tests.fuzz --only splice --seconds 600

    target.py      what a target is: a check that raises, seeds made by code, words that its inputs are made of
    virtual.py     an event loop without sockets, whose time passes when it is told to
    sessions.py    the SMTP ingress: whole sessions, in chunks
    splices.py     where the pixel goes
    reading.py     reports, and mail as people see it
    addresses.py   one address, and header fields full of them
    tokens.py      names that only we can make
    tidying.py     a message made fit to go out
    quoting.py     replies and forwards, and HTML that is quoted in them
    drive.py       one target under atheris, in a process of its own
    summary.py     what came of it

Nothing here needs atheris but `drive`: the test suite runs every check on its seeds, and every crash that was found is
a test of its own beside what it was found in.
"""
