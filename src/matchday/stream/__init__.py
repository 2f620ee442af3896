"""The stream between the stages: a partitioned log with owners, groups and bookmarks.

`embedded` keeps it in one SQLite file, `kafka` in Apache Kafka; both keep the promises of
`matchday.ports.Stream`. Does not own what a record means (`domain.wire`), nor the table of
topics (`domain.topics`).
"""
