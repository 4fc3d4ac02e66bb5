"""The ledger run: real processes through bad minutes, and what was promised held against what came of it.

    make chaos                                  # two minutes, a seed of its own choice, printed
    CHAOS_SECONDS=1800 CHAOS_SEED=7 make chaos  # longer; the same storms in the same order again

`ledger` says what must hold, and is tested by itself. `sink` and `senders` keep the two ledgers; `stage` has the
processes and the cables between them; `storms` is what goes wrong; `__main__` lets it happen and reconciles.
"""
