"""
Jobs of many machines: one database, and DBOS Transact, which deals them out to the processes that live them.

A job is a row of ours; DBOS has a workflow for each time that it is to be held by somebody, named by the job and the
epoch of its row. Row and workflow are written in one transaction. Whoever's DBOS is dealt the workflow claims the row,
and lives the job as with any store; a process that dies is buried by the others, who deal its jobs out anew, as a
workflow of the next epoch: nothing is resumed, so there is nothing that a resume could lose.
"""
