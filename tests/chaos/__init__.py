"""The ledger run: real processes through bad minutes, and what was promised held against what came of it.

    make chaos                                  # two minutes, a seed of its own choice, printed
    CHAOS_SECONDS=1800 CHAOS_SEED=7 make chaos  # longer; the same storms in the same order again
    make hosts                                  # two hosts, one of which is cut off and returns

ledger     what must hold; pure, and tested by itself
doubt      which copies may come twice; pure as well
sink       the upstream, and its ledger
senders    the applications, and theirs
reckoning  the accounts before a run, and what the store says after it
stage      one machine: `postferry up`, some roles beside it, and the cables between all
cable      a line that can be cut
disk       a disk that can be filled
storms     what goes wrong on it
islands    two hosts and a store, a network namespace each
wires      these namespaces, and lines between them
hosts      what goes wrong there
rush       what two hosts carry beside one
ending     Ctrl-C
apart      what the system gives to a process alone
"""
