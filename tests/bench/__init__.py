"""The benchmark, `python -m tests.bench`: loads a fresh Postferry and, beside it, a fresh Postfix, and prints figures.

__main__   the options, and the order in which things happen
figures    what is measured, round by round, for either system
analytics  what statistics and lists cost beside a million deliveries and beside ten
lease      what a lease costs beside few and beside very many scheduled deliveries
bars       how fast is fast enough
load       the generator, a process of its own: plain SMTP and HTTP clients
sink       the upstream, a process of its own: counts every message, stores none
mail       what is sent: the same bytes to both systems
postferry  a fresh Postferry in a folder of its own
postfix    a fresh Postfix in a folder of its own
ports      free ports, and when a server answers
machine    what it ran on: cores, disk, and what processes use of them
profile    where a role's time goes
tables     what PostgreSQL keeps on its disk
filling    a database with very much mail, due or old
report     the table, the bars as pictures, bench.json

Some have commands of their own (docs/proof.md, "Scale"):

distance   an upstream that is 50 ms away, against what is possible; by way of `delay`, the proxy
fairness   a million due messages beside one message a second
soak       half an hour at 70 %; `verdicts` judges its series, `forgetful` is its scheduler
retention  what a message takes on the disk, and what its leaving costs
profiles   where the time of each role goes, as tables
proof      what these share: options, a folder, how they tell what they found
"""
