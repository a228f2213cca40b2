"""
The store on disk.

    place     where the file is, what a fork inherits, who has died
    causes    every fault a StoreError that says what to do
    rows      a record as JSON
    jobfile   the file: all SQL
    mirror    what readers see
    journal   transactions, leases, fencing
    writer    the thread: group commit, beats, what could not be written yet
    store     SqliteStore: the port over that thread
    peek      a look into the file, for who holds nothing
"""
