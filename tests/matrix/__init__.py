"""The kill matrix: a role is killed exactly at each point of the natural path, and the table says what came of it.

    make matrix                 # the table, in Markdown
    make matrix ONLY=dot        # those whose name has this word

The seam: `role` runs a role's own main, after it has put a SIGKILL before or after one function of it, which `points`
names. Production code knows nothing of this and pays nothing for it; a point whose function was renamed fails loudly.
"""
